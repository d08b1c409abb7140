"""Properties of an experiment by which evaluators tell whether they apply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmjax.data.columns.base import Making
from mmjax.data.columns.text import Caption
from mmjax.data.sources.base import IMAGE_TEXT
from mmjax.data.sources.emoji import Emoji
from mmjax.kinds import option_name

if TYPE_CHECKING:  # the configuration of an experiment holds evaluators
  from mmjax.data.config import DataConfig
  from mmjax.experiment import Experiment
  from mmjax.objectives.terms.base import Term


def has_emoji(data: DataConfig) -> bool:
  """True if the data is the emoji, of which several artists are compared."""
  return isinstance(data.source, Emoji)


def source_name(data: DataConfig) -> str:
  """The name of the kind of data."""
  return option_name(type(data.source))


def entries(data: DataConfig) -> tuple[str, ...]:
  """Names of the arrays that the data fills in a batch."""
  if not data.columns:
    return data.source.features
  return tuple(array for name, column in data.columns.items() for array in column.arrays(name, Making(data)))


def captioned(data: DataConfig) -> bool:
  """True if the data has images with captions, whatever else it has."""
  columns = data.columns or data.source.columns
  return isinstance(columns.get("text"), Caption) and "image" in entries(data)


def corrupted(data: DataConfig) -> bool:
  """True if some training captions were replaced by wrong ones on purpose."""
  return bool(data.corrupt_captions) and data.captions_from is None


def compares(experiment: Experiment) -> bool:
  """True if embeddings are trained to be compared by their cosine."""
  return any(term.compares for term in experiment.objectives)


def compared(experiment: Experiment) -> list[tuple[str, str]]:
  """The pairs of arrays that terms compare, each pair once."""
  pairs = [getattr(term, "between", IMAGE_TEXT) for term in experiment.objectives if term.compares]
  return list(dict.fromkeys(pairs))


def of_images_and_texts(pair: tuple[str, str]) -> bool:
  """True if both arrays are images or texts; a number at the end of the name is that of a view."""
  return {name.rstrip("0123456789") for name in pair} <= set(IMAGE_TEXT)


def terms(experiment: Experiment, *asking: type, without: tuple[type, ...] = ()) -> list[Term]:
  """The terms that ask a model for all of some protocols (mmjax.models.protocols), and for none of others."""
  return [term for term in experiment.objectives if set(asking) <= set(term.asks) and not set(without) & set(term.asks)]
