"""Which entries of a batch a source fills."""

from typing import Any

from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError

# By the names of the entries in a batch, see mmjax.types. "text" is a caption, the question where there are
# answers, and both texts of a pair where there is "next".
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


def check_settings(config: DataConfig, features: tuple[str, ...]) -> None:
  """Raises DataError where a setting cannot be honoured for what the source has."""
  if config.views == 2 and features != IMAGE_TEXT:
    raise DataError(
      f"--data.views 2 needs a picture with captions; --data.source {config.source} gives {', '.join(features)}. "
      "Leave --data.views at 1."
    )
  if config.trim and "relevance" in features:
    raise DataError("--data.trim cuts the picture and would leave the field `relevance` behind. Use --data.no-trim.")
  if "next" in features and config.tokenizer.sep_token is None:
    raise DataError("--data.source texts gives pairs of texts: set --data.tokenizer.sep-token '<sep>'.")
