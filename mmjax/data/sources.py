"""Where records come from: random access to dictionaries, whatever lies underneath."""

import zlib
from collections.abc import Sequence
from typing import Any, Protocol, TypedDict, get_args, get_type_hints

from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError, unknown


class Record(TypedDict, total=False):
  """One example. Every source gives id and concept, and what its `features` (mmjax.data.features) need."""

  image: bytes
  """Encoded."""
  captions: dict[str, list[str]]
  """By kind; "name" is the main caption of every source."""
  id: str
  """How errors and reports name the record."""
  concept: int
  """Equal numbers mean the same thing."""
  picture: int
  """Records with equal numbers have the same picture (absent: each has its own)."""
  question: str
  answer: str
  """The main answer."""
  answers: list[str]
  """What all annotators answered; [answer] where nobody else was asked."""
  relevance: bytes
  """An encoded picture as large as the image, white on the pixels that the question is about."""
  first: str
  second: str
  """The text that really follows `first`."""
  others: list[str]
  """Texts that do not."""
  codepoint: str
  concept_group: str
  group: str
  subgroup: str
  vendor: str
  skin_tone: bool


class Source(Protocol):
  """Random access to records."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> Any: ...


def siblings(source: Source, index: int) -> Sequence[int]:
  """Other records that show the same thing; a source that knows them has a method of this name."""
  method = getattr(source, "siblings", None)
  return method(index) if method else ()


def concept_number(meaning: str) -> int:
  """A stable non-negative int32 for a meaning; equal strings, equal numbers."""
  return zlib.crc32(meaning.encode()) & 0x7FFFFFFF


def make_source(config: DataConfig, split: str) -> Source:
  """The records of a split.

  Splits: emoji, scenes and texts "train", "heldout" (or "validation": the concepts never trained on), "all"; a folder
  "train", "validation", "all", and so shards; easy_vqa "train", "test" (or "validation"), "all"; coco
  and vqav2 "train", "validation", and flickr30k "test" and "all" besides; TFDS "train" and "validation" (the
  configuration names them), or any TFDS split. "train" has the captions that
  --data.corrupt-captions and --data.captions-from say.

  Raises:
    DataError: there is no such split, or the data cannot be read; the message says what to change.
  """
  for opened in (_made, _own, _published):
    source = opened(config, split)
    if source is not None:
      return _with_captions(source, config) if split == "train" else source
  raise unknown("--data.source", config.source, get_args(get_type_hints(DataConfig)["source"]))


def _with_captions(source: Source, config: DataConfig) -> Source:
  """The source with wrong captions, or others, where the configuration wants them."""
  if config.corrupt_captions:
    from mmjax.data.corruption import CorruptedSource

    source = CorruptedSource(source, config.corrupt_captions)
  if config.captions_from is not None:
    from mmjax.data.recaption import RecaptionedSource

    source = RecaptionedSource(source, config.captions_from)
  return source


def _made(config: DataConfig, split: str) -> Source | None:
  """What is built from packages, or generated."""
  if config.source == "emoji":
    from mmjax.data.emoji_source import EmojiSource

    return EmojiSource.from_config(config, split)
  if config.source == "scenes":
    from mmjax.data.scenes_source import ScenesSource

    return ScenesSource(config, split)
  if config.source == "easy_vqa":
    from mmjax.data.easy_vqa_source import EasyVqaSource

    return EasyVqaSource(config, split)
  if config.source == "texts":
    from mmjax.data.texts_source import TextsSource

    return TextsSource(config, split)
  return None


def _own(config: DataConfig, split: str) -> Source | None:
  """What lies on the user's disk in formats of any content."""
  if config.source == "folder":
    from mmjax.data.folder_source import FolderSource

    if config.path is None:
      raise DataError("--data.source folder needs --data.path DIR: a directory with pictures and captions.csv.")
    return FolderSource.from_config(config, split)
  if config.source == "shards":
    from mmjax.data.shards_source import ShardsSource

    return ShardsSource.from_config(config, split)
  if config.source == "tfds":
    from mmjax.data.tfds_source import TfdsSource

    if config.name is None:
      raise DataError("--data.source tfds needs --data.name NAME, such as coco_captions/2014.")
    return TfdsSource.from_config(config, split)
  return None


def _published(config: DataConfig, split: str) -> Source | None:
  """What lies on the user's disk as it was published."""
  if config.source == "coco":
    from mmjax.data.coco_source import CocoSource

    return CocoSource(config, split)
  if config.source == "vqav2":
    from mmjax.data.vqav2_source import VqaV2Source

    return VqaV2Source(config, split)
  if config.source == "flickr30k":
    from mmjax.data.flickr_source import FlickrSource

    return FlickrSource(config, split)
  return None
