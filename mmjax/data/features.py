"""Columns of a run: those in its configuration, or those of its source."""

from collections.abc import Mapping
from typing import Any

from mmjax.data.columns.base import Column
from mmjax.data.columns.image import Image
from mmjax.data.columns.label import Label
from mmjax.data.columns.text import Caption
from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError
from mmjax.data.sources.base import IMAGE_TEXT, columns_of_features
from mmjax.kinds import option_name


def source_features(records: Any) -> tuple[str, ...]:
  """Return the arrays that records fill: their attribute `features`, by default images and captions."""
  return tuple(getattr(records, "features", IMAGE_TEXT))


def run_columns(config: DataConfig, records: Any = None) -> Mapping[str, Column]:
  """Return the columns of a run, by name: those of `data.columns`, else of the records, else of the source.

  Args:
    config: settings of the data.
    records: the open source. Its attribute `features`, if it has one, names the arrays that it fills.
  Raises: DataError: data.views is 2, but the source has no images with captions.
  """
  if config.columns:
    return config.columns
  features = getattr(records, "features", None)
  columns = dict(config.source.columns if features is None else columns_of_features(tuple(features)))
  if config.views == 2:
    if set(columns) != set(IMAGE_TEXT):
      raise DataError(
        f"--data.views 2 needs images with captions; --data.source {option_name(type(config.source))} gives "
        f"{', '.join(columns)}. Leave --data.views at 1."
      )
    columns |= {"image2": Image(sibling=True), "text2": Caption()}
  return columns | ({"group": Label("group")} if config.source.has_group else {})
