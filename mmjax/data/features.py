"""The columns of a run's data: those that the configuration names, or those of its source."""

from collections.abc import Mapping
from typing import Any

from mmjax.data.columns.base import Column
from mmjax.data.columns.label import Label
from mmjax.data.columns.picture import Picture
from mmjax.data.columns.text import Answer, Caption, Question, SentencePair
from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError

# By the names of the arrays in a batch, see mmjax.types.
IMAGE_TEXT = ("image", "text")
QUESTION = ("image", "text", "answer", "answer_text")
GROUNDED_QUESTION = (*QUESTION, "relevance")
PAIR = ("text", "segment", "next")

_BY_SOURCE = {
  "easy_vqa": QUESTION,
  "vqav2": QUESTION,
  "texts": PAIR,
}


def config_features(config: DataConfig) -> tuple[str, ...]:
  """The entries of a batch of the source that a configuration names, without opening it."""
  if config.source == "scenes":
    return GROUNDED_QUESTION if config.scenes.text == "question" else IMAGE_TEXT
  return _BY_SOURCE.get(config.source, IMAGE_TEXT)


def source_features(source: Any) -> tuple[str, ...]:
  """The entries of a batch of a source: its attribute `features`; pictures and captions where it has none."""
  return tuple(getattr(source, "features", IMAGE_TEXT))


def source_columns(features: tuple[str, ...]) -> dict[str, Column]:
  """The columns of a source that fills these arrays."""
  if features == PAIR:
    return {"text": SentencePair()}
  if "answer" in features:
    return {"image": Picture(relevance="relevance" in features), "text": Question(), "answer": Answer()}
  return {"image": Picture(), "text": Caption()}


def run_columns(config: DataConfig, features: tuple[str, ...] | None = None) -> Mapping[str, Column]:
  """The columns of a run, by name.

  Args:
    config: the data; its own columns come before those of the source.
    features: arrays that the source fills, where it is open; those of the configured source where it is None.
  Raises: DataError where a second view is asked of a source that does not give images with captions.
  """
  if config.columns:
    return config.columns
  features = config_features(config) if features is None else features
  columns = source_columns(features)
  if config.views == 2:
    if features != IMAGE_TEXT:
      raise DataError(
        f"--data.views 2 needs a picture with captions; --data.source {config.source} gives {', '.join(features)}. "
        "Leave --data.views at 1."
      )
    columns |= {"image2": Picture(sibling=True), "text2": Caption()}
  return columns | ({"group": Label("group")} if config.source == "emoji" else {})
