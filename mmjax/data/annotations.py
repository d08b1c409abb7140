"""Readers of annotation files of published data sets. A file is read once, and each entry is checked."""

import functools
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data.captions import caption_fault, unique
from mmjax.data.downloads import refused
from mmjax.data.errors import DataError
from mmjax.data.fingerprint import digest, sample
from mmjax.data.records import PRIMARY, Record, captions_concept
from mmjax.data.sources.base import Reading

VALIDATION_FRACTION = 0.05
log = logging.getLogger(__name__)


class Complaints:
  """Handling of bad entries: an error with --data.on-bad-record error, a count with --data.on-bad-record skip.

  Attributes:
    number: number of skipped entries.
  """

  def __init__(self, reading: Reading):
    self._skip = reading.skip
    self.number = 0

  def add(self, message: str) -> None:
    """Raise DataError with the message and a remedy, or log the message and count the entry."""
    if not self._skip:
      raise DataError(f"{message} Correct it, or use --data.on-bad-record skip.")
    self.number += 1
    log.warning("Skipped an entry: %s", message)


class Images:
  """A folder of images, listed once."""

  def __init__(self, folder: Path):
    self.folder = folder
    self._names = {entry.name for entry in os.scandir(folder)}

  def __contains__(self, name: object) -> bool:
    return name in self._names

  def read(self, name: str) -> bytes:
    """Read a file. Raises DataError if it cannot be read."""
    path = self.folder / name
    try:
      return path.read_bytes()
    except OSError as error:
      raise DataError(f"Cannot read {path}: {error.strerror}. Restore it or remove its entry.") from error


def data_folder(source: str, path: str | None, layout: str) -> Path:
  """The directory at --data.source.path.

  Args:
    source: name of the source, for the error.
    path: the setting.
    layout: files that the directory must have, for the error.
  Raises: DataError, which shows the layout, where the path is not given or no directory.
  """
  if path is None:
    raise DataError(f"--data.source {source} needs --data.source.path DIR, with {layout}.")
  folder = Path(path).expanduser()
  if not folder.is_dir():
    raise DataError(f"--data.source.path {folder} is not a directory. Give the one with {layout}.")
  return folder


def first_of(folder: Path, names: Sequence[str], layout: str) -> Path:
  """First of `names` that exists in the folder. Raises DataError, which shows `layout`, if there is none."""
  for name in names:
    if (folder / name).exists():
      return folder / name
  raise DataError(f"{folder} has no {' or '.join(names)}. --data.source.path must be the directory with {layout}.")


def read_json(path: Path, lists: Sequence[str], compact: Callable[[dict], Any]) -> list[list[Any]]:
  """Read lists from a file with one JSON object.

  The file is read at once. At the peak, memory holds its text and the compacted entries, but not the full entries.

  Args:
    path: the file.
    lists: names of the fields to read. Each must be a list.
    compact: function that is applied to every object in the file, and returns what is kept of it.
  Returns: the lists.
  Raises:
    DataError: the file cannot be read or lacks a field. The message names the file and the position or the field.
  """
  try:
    fields = json.loads(path.read_bytes(), object_pairs_hook=lambda pairs: compact(unique(pairs)))
  except (OSError, ValueError, RecursionError) as error:
    raise DataError(_unread(path, error)) from error
  if not isinstance(fields, dict):
    raise DataError(f"{path} is not a JSON object with the field {lists[0]!r}. Download it again.")
  for name in lists:
    if not isinstance(fields.get(name), list):
      raise DataError(f"{path} has no list {name!r}, only {', '.join(map(str, fields))}. Is it the right file?")
  return [fields[name] for name in lists]


def _unread(path: Path, error: Exception) -> str:
  """Message about a file that is no JSON."""
  otherwise = f"{error}. It must be the published JSON file; download it again."
  try:
    with path.open("rb") as file:
      return refused(file.read(1000), f"Cannot read {path}", otherwise)
  except OSError:
    return f"Cannot read {path}: {otherwise}"


def fault(entry: Any, fields: Mapping[str, type], where: str) -> str | None:
  """Check the fields of an object.

  Args:
    entry: the object.
    fields: required fields and their types.
    where: place of the object, for the message.
  Returns: a message about the first fault, or None.
  """
  if not isinstance(entry, dict):
    return f"{where} is not an object with {', '.join(fields)}."
  for name, kind in fields.items():
    value = entry.get(name)
    if name not in entry:
      return f"{where} has no field {name!r}."
    if kind is str:
      wrong = caption_fault(value)
    else:
      wrong = None if type(value) is kind else f"is {value!r:.60}, not {_KINDS[kind]}"
    if wrong is not None:
      return f"{where}: the field {name!r} {wrong}."
  return None


def hashed_split(name: str) -> str:
  """Split of a name: "validation" for about 5% of all names, else "train". It depends on the name alone."""
  digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
  return "validation" if digest < VALIDATION_FRACTION * 2**64 else "train"


_KINDS = {int: "a whole number", list: "a list"}


class CaptionedImages:
  """Base class of sources with random access to captioned images in a folder. Subclasses set the three attributes."""

  _pictures: Images
  _captions: dict[str, list[str]]
  _names: list[str]

  def __len__(self) -> int:
    return len(self._names)

  @property
  def fingerprint(self) -> int:
    """Number that changes with the file names and their order."""
    return digest(self._names)

  @functools.cached_property
  def sample(self) -> int:
    """Number that changes with the captions of a sample of the images."""
    return sample(self)

  def without_image(self, index: int) -> Record:
    """Make a record without its image."""
    name = self._names[index]
    texts = self._captions[name]
    concept = captions_concept(texts)
    return Record(captions={PRIMARY: texts}, id=str(self._pictures.folder / name), concept=concept)

  def __getitem__(self, index: int) -> Record:
    record = self.without_image(index)
    record["image"] = self._pictures.read(self._names[index])
    return record
