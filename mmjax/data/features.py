"""The columns of a run's data: those that the configuration names, or those of its source."""

from collections.abc import Mapping
from typing import Any

from mmjax.data.columns.base import Column
from mmjax.data.columns.label import Label
from mmjax.data.columns.picture import Picture
from mmjax.data.columns.text import Caption
from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError
from mmjax.data.sources.base import IMAGE_TEXT, columns_of_features
from mmjax.kinds import option_name


def config_features(config: DataConfig) -> tuple[str, ...]:
  """The entries of a batch of the configured source, without opening it."""
  return config.source.features


def source_features(records: Any) -> tuple[str, ...]:
  """The entries of a batch that records fill: their attribute `features`; image and text where they have none."""
  return tuple(getattr(records, "features", IMAGE_TEXT))


def run_columns(config: DataConfig, records: Any = None) -> Mapping[str, Column]:
  """The columns of a run, by name: those of `data.columns`, or else of the records, or else of the source.

  Args:
    config: the data.
    records: the open source. Its attribute `features`, if it has one, says what it fills.
  Raises: DataError where a second view is asked of a source that does not give images with captions.
  """
  if config.columns:
    return config.columns
  features = getattr(records, "features", None)
  columns = dict(config.source.columns if features is None else columns_of_features(tuple(features)))
  if config.views == 2:
    if set(columns) != set(IMAGE_TEXT):
      raise DataError(
        f"--data.views 2 needs an image with captions; --data.source {option_name(type(config.source))} gives "
        f"{', '.join(columns)}. Leave --data.views at 1."
      )
    columns |= {"image2": Picture(sibling=True), "text2": Caption()}
  return columns | ({"group": Label("group")} if config.source.has_group else {})
