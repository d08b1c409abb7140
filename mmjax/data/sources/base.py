"""The base of all sources, and the settings that they share."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from mmjax.data.columns.answer import Answer
from mmjax.data.columns.base import Column
from mmjax.data.columns.image import Image
from mmjax.data.columns.text import Caption, Question, SentencePair
from mmjax.data.records import Media, Records
from mmjax.kinds import Kind, option_name, undefined

# Features are names of the entries of a batch, see mmjax.types. "text" is a caption; the question where there are
# answers; and both texts of a pair where there is "next".
IMAGE_TEXT = ("image", "text")
QUESTION = ("image", "text", "answer", "answer_text")
GROUNDED_QUESTION = (*QUESTION, "relevance")
PAIR = ("text", "segment", "next")

BUILT_SPLITS = {
  "train": ("train",),
  "heldout": ("heldout",),
  "validation": ("heldout",),
  "all": ("train", "heldout"),
}
"""{split: splits of the built data set} for sources that hold out concepts or scenes when they are built."""


@dataclasses.dataclass(frozen=True)
class Reading:
  """The settings of `data` that any source may need. `DataConfig.reading` makes it."""

  dir: str = "~/.cache/mmjax"
  """Folder for built data and for indices of shards."""
  on_bad_record: Literal["error", "skip"] = "error"
  """error: raise DataError for a bad record; skip: leave it out and count it."""
  max_bytes: int = 64 * 2**20
  """Largest accepted image file, in bytes."""

  @property
  def skip(self) -> bool:
    """True if bad records are left out."""
    return self.on_bad_record == "skip"


def columns_of_features(features: tuple[str, ...]) -> dict[str, Column]:
  """The columns that give these entries of a batch."""
  if features == PAIR:
    return {"text": SentencePair()}
  if "answer" in features:
    return {"image": Image(relevance="relevance" in features), "text": Question(), "answer": Answer()}
  return {"image": Image(), "text": Caption()}


def media_columns(media: Media) -> dict[str, Column]:
  """The column of the files: `image`, `audio` for sounds, or `video`."""
  if media == "image":
    return {"image": Image()}
  if media == "video":
    from mmjax.data.columns.video import Video

    return {"video": Video()}
  from mmjax.data.columns.sound import Sound  # it imports features, which data without sounds does not need

  return {"audio": Sound()}


class Source(Kind):
  """A place that records come from. Subclasses are frozen dataclasses with the source's own settings.

  Example:
    >>> @dataclasses.dataclass(frozen=True)
    ... class Numbers(Source):
    ...   '''The numbers below a limit, as texts without images.'''
    ...
    ...   limit: int = 10
    ...   '''Number of records.'''
    ...
    ...   def open(self, split: str, reading: Reading) -> Records:
    ...     return [{"id": str(n), "concept": n, "captions": {"name": [str(n)]}} for n in range(self.limit)]
    >>> len(Numbers(limit=3).open("train", Reading()))
    3
  """

  @property
  def columns(self) -> Mapping[str, Column]:
    """The columns of a batch, by name, where data.columns is empty. Known without opening the source."""
    return columns_of_features(self.features)

  @property
  def features(self) -> tuple[str, ...]:
    """Names of the entries of a batch that the records fill. Known without opening the source."""
    return IMAGE_TEXT if type(self).columns is Source.columns else tuple(self.columns)

  @property
  def title(self) -> str:
    """Name of the data in results, tables and reports."""
    return option_name(type(self))

  @property
  def languages(self) -> tuple[str, ...]:
    """Kinds of captions that are the name in another language; `data.languages_weight` is shared among them."""
    return ()

  @property
  def has_group(self) -> bool:
    """True if records have the field `group`. Batches then have an entry of this name."""
    return False

  def open(self, split: str, reading: Reading) -> Records:
    """Returns the records of a split.

    Args:
      split: "train", "validation", or another name that the source knows.
      reading: settings that all sources share.
    Raises: DataError, which names the file or record, and says what to change.
    """
    raise undefined(self, "open")
