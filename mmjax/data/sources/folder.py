"""A user's own images, sounds or videos: a directory, and a CSV, TSV or JSONL with a caption of each."""

import dataclasses
import functools
import hashlib
import logging
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from mmjax.data.caption_files import IMAGE_COLUMNS, SOUND_COLUMNS, VIDEO_COLUMNS, Keys, Row, read_rows
from mmjax.data.captions import read_captions
from mmjax.data.columns.base import Column
from mmjax.data.columns.text import Caption
from mmjax.data.errors import DataError, unknown
from mmjax.data.fingerprint import digest, sample
from mmjax.data.image_names import Found, find_image
from mmjax.data.images.files import read_image_file
from mmjax.data.records import PRIMARY, Media, Record, captions_concept
from mmjax.data.sources.base import Reading, Source, media_columns
from mmjax.data.split_names import HELD_OUT, TRAINING, split_of

CAPTION_FILES = ("captions.csv", "captions.tsv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
SPLITS = ("train", "validation", "all")
USUAL_COLUMNS = {"image": IMAGE_COLUMNS, "sound": SOUND_COLUMNS, "video": VIDEO_COLUMNS}
"""Usual names of the column with the file."""
VALIDATION_FRACTION = 0.05
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Folder(Source):
  """A directory of images, and a CSV, TSV or JSONL file with their captions.

  Splits: "train", "validation", "all". A column `split` decides where there is one: "train", or "validation", "val",
  "dev", "test" and the like. Otherwise a hash of the file name keeps about 5% for validation, always the same images.
  """

  path: str | None = None
  """Directory of the images and the caption file."""
  captions_file: str | None = None
  """Caption file; default: captions.csv, captions.tsv, captions.jsonl, metadata.csv or metadata.jsonl. A CSV may have
  semicolons or tabs in place of commas."""
  image_key: str | None = None
  """Column with the file name, relative to `path`; default: image, file_name, filename or filepath."""
  caption_key: str | None = None
  """Column with the caption; default: caption, text, title or captions. Several rows may caption the same image. In
  JSONL the value may be a list."""
  media: Media = "image"
  """Content of the files: images, sounds (.wav, .flac, .ogg, .mp3), or videos (.mp4, .webm, .mkv, .gif, .webp, or a
  folder of frames). The column of the name may also be called sound, audio or path; or video or path."""

  @property
  def columns(self) -> dict[str, Column]:
    return {**media_columns(self.media), "text": Caption()}

  @property
  def title(self) -> str:
    return self.path or super().title

  def open(self, split: str, reading: Reading) -> "FolderRecords":
    return FolderRecords(self, split, reading)


@dataclasses.dataclass(slots=True)
class _Image:
  """An image, and what its rows say of it."""

  path: str
  name: str
  captions: list[str]
  split: str | None
  place: str


class FolderRecords:
  """The images that the caption file lists, one record per image, in the order of the file.

  Attributes:
    num_skipped: rows that were left out (no caption, missing image, wrong form), with on_bad_record "skip".
    splits: splits that the column `split` names, sorted; empty: there is no such column.

  Raises:
    DataError: naming the file, the row and the column, and what to do.
  """

  def __init__(self, config: Folder, split: str, reading: Reading):
    if config.path is None:
      raise DataError("--data.source folder needs --data.source.path DIR: a directory with images and captions.csv.")
    if split not in SPLITS:
      raise unknown("split of a folder", split, SPLITS)
    self._directory = Path(config.path).expanduser()
    self.num_skipped, self._max_bytes, self._media = 0, reading.max_bytes, config.media
    file = _find_captions(self._directory, config.captions_file)
    usual = USUAL_COLUMNS[config.media]
    images, last = self._read(file, Keys(config.image_key, config.caption_key, usual), reading.skip)
    self.splits = tuple(sorted({image.split for image in images if image.split}))
    chosen = [image for image in images if split in ("all", image.split or _hashed_split(image.name))]
    self._paths, self._captions = [image.path for image in chosen], [image.captions for image in chosen]
    if not chosen:
      raise DataError(
        f"{file} lists no {config.media} of the split {split!r}. Add rows, or a column `split`."
        + (f" The last of {self.num_skipped} skipped rows: {last}" if last else "")
      )

  def __len__(self) -> int:
    return len(self._paths)

  @property
  def fingerprint(self) -> int:
    """Number that changes with the file names and their order."""
    return digest(os.path.relpath(path, self._directory) for path in self._paths)

  @functools.cached_property
  def sample(self) -> int:
    """Number that changes with the captions of a sample of the records."""
    return sample(self)

  def without_image(self, index: int) -> Record:
    """The record without its file, which is not read."""
    texts = self._captions[index]
    return Record(captions={PRIMARY: texts}, id=self._paths[index], concept=captions_concept(texts))

  def __getitem__(self, index: int) -> Record:
    path, record = Path(self._paths[index]), self.without_image(index)
    if self._media == "video" and path.is_dir():  # of whose frames only some are read
      return {**record, "video": str(path)}
    record[self._media] = read_image_file(path, self._max_bytes, otherwise="remove its row")
    return record

  def _is_file(self, name: str) -> bool:
    try:
      return (self._directory / name).is_file()
    except (OSError, ValueError):  # no file can have such a name
      return False

  def _read(self, file: Path, keys: Keys, skip: bool) -> tuple[list[_Image], DataError | None]:
    """Read all rows. Returns the images, and the last row that was skipped."""
    images: dict[Hashable, _Image] = {}
    last: DataError | None = None
    for row in read_rows(file, keys, self._is_file):
      try:
        if isinstance(row, DataError):
          raise row
        _add(images, row, find_image(self._directory, row.image, row.place, self._media))
      except DataError as error:
        if not skip:
          raise
        self.num_skipped, last = self.num_skipped + 1, error
        log.warning("Skipped a row: %s", error)
    return list(images.values()), last


def _add(images: dict[Hashable, _Image], row: Row, found: Found) -> None:
  """Add a row to its image. Raises DataError if the row is wrong, or contradicts another one."""
  texts = read_captions(row.caption, f"{row.place}: the field {row.key!r}", typed=row.typed)
  image = _Image(found.path, found.name, texts, _split(row.split, row.place), row.place)
  before = images.get(found.identity)
  other = before or next(iter(images.values()), image)
  if (image.split is None) != (other.split is None):
    raise DataError(f"{row.place}: a split is given here or in {other.place}, but not in both. Give it in every row.")
  if before is None:
    images[found.identity] = image
    return
  if image.split != before.split:
    raise DataError(f"{row.place}: {row.image!r} is for {image.split}, but for {before.split} in {before.place}.")
  before.captions.extend(texts)
  before.name = min(before.name, image.name)  # the order of the rows does not matter to the split


def _find_captions(directory: Path, given: str | None) -> Path:
  candidates = [directory / name for name in CAPTION_FILES] if given is None else [directory / given]
  try:
    if not directory.is_dir():
      raise DataError(f"--data.source.path {directory} is not a directory. Give the one with your images.")
    found = [path for path in candidates if path.is_file()]
  except OSError as error:
    raise DataError(f"Cannot read the directory {directory}: {error.strerror}. Check its permissions.") from error
  if not found:
    raise DataError(
      f"{directory} has no {' or '.join(path.name for path in candidates)}. "
      "Write one with the columns image and caption, or name yours with --data.source.captions-file FILE."
    )
  if len(found) > 1:
    others = ", ".join(path.name for path in found[1:])
    log.warning("%s is read and %s is not: name another with --data.source.captions-file", found[0], others)
  return found[0]


def _split(value: Any, place: str) -> str | None:
  """Split that a row names. None: it names none."""
  text = value.strip().casefold() if isinstance(value, str) else value
  if text in (None, ""):
    return None
  found = split_of(text) if isinstance(text, str) else None
  if found is None:
    raise DataError(f"{place}: the field 'split' is {value!r:.60}. Write {', '.join((*TRAINING, *HELD_OUT))}.")
  return found


def _hashed_split(name: str) -> str:
  digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
  return "validation" if digest < VALIDATION_FRACTION * 2**64 else "train"
