"""A user's own pictures: a directory, and a CSV or JSONL that says what each picture shows."""

import csv
import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from mmjax.data.errors import DataError, unknown
from mmjax.data.fingerprint import digest
from mmjax.data.records import PRIMARY, Record, captions_concept
from mmjax.data.sources.base import Reading, Source

CAPTION_FILES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
IMAGE_COLUMNS = ("image", "file_name", "filename", "filepath")
CAPTION_COLUMNS = ("caption", "text", "title")
SPLITS = ("train", "validation", "all")
VALIDATION_FRACTION = 0.05
MAX_LINE = 1_000_000
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Folder(Source):
  """A directory of images, and a CSV or JSONL file with their captions.

  Splits: "train", "validation", "all". A column `split` decides where there is one: "train", or anything else for
  validation. Otherwise a hash of the file name keeps about 5% for validation, always the same images.
  """

  path: str | None = None
  """Directory of the images and the caption file."""
  captions_file: str | None = None
  """Caption file; default: captions.csv, captions.jsonl, metadata.csv or metadata.jsonl."""
  image_key: str | None = None
  """Column with the file name, relative to `path`; default: image, file_name, filename or filepath."""
  caption_key: str | None = None
  """Column with the caption; default: caption, text or title. Several rows may caption the same image. In JSONL the
  value may be a list."""

  @property
  def title(self) -> str:
    return self.path or super().title

  def open(self, split: str, reading: Reading) -> "FolderRecords":
    return FolderRecords(self, split, reading)


class FolderRecords:
  """The images that the caption file lists, one record per image, in the order of the file.

  Attributes:
    num_skipped: rows that were left out (empty caption, missing image), with on_bad_record "skip".

  Raises:
    DataError: naming the file, the row and the column, and what to do.
  """

  def __init__(self, config: Folder, split: str, reading: Reading):
    if config.path is None:
      raise DataError("--data.source folder needs --data.source.path DIR: a directory with pictures and captions.csv.")
    if split not in SPLITS:
      raise unknown("split of a folder", split, SPLITS)
    self._directory = Path(config.path).expanduser()
    self.num_skipped, self._max_bytes = 0, reading.max_bytes
    file = _find_captions(self._directory, config.captions_file)
    captions: dict[str, list[str]] = {}
    chosen: dict[str, str] = {}
    for line, row in _rows(file):
      place = f"{file}, line {line}"
      image_key = _column(row, config.image_key, IMAGE_COLUMNS, place, "--data.source.image-key")
      caption_key = _column(row, config.caption_key, CAPTION_COLUMNS, place, "--data.source.caption-key")
      try:
        name, texts = self._entry(row, image_key, caption_key, place)
      except DataError as error:
        if not reading.skip:
          raise
        self.num_skipped += 1
        log.warning("Skipped a row: %s", error)
        continue
      captions.setdefault(name, []).extend(texts)
      chosen.setdefault(name, _split(name, row))
    self._names = [name for name in captions if split in ("all", chosen[name])]
    self._captions = captions
    if not self._names:
      raise DataError(f"{file} lists no picture of the split {split!r}. Add rows, or a column `split`.")

  def __len__(self) -> int:
    return len(self._names)

  @property
  def fingerprint(self) -> int:
    """Number that changes with the file names and their order."""
    return digest(self._names)

  def __getitem__(self, index: int) -> Record:
    name = self._names[index]
    path = self._directory / name
    try:
      size = path.stat().st_size
      if size > self._max_bytes:
        raise DataError(f"{path}: {size} bytes; up to {self._max_bytes} are accepted. Shrink it, or remove its row.")
      image = path.read_bytes()
    except OSError as error:
      raise DataError(f"Cannot read {path}: {error.strerror}. Restore it or remove its row.") from error
    texts = self._captions[name]
    return Record(image=image, captions={PRIMARY: texts}, id=str(path), concept=captions_concept(texts))

  def _entry(self, row: Mapping, image_key: str, caption_key: str, place: str) -> tuple[str, list[str]]:
    name, value = row[image_key], row[caption_key]
    texts = [str(text).strip() for text in (value if isinstance(value, list) else [value or ""])]
    if not texts or not all(texts):
      raise DataError(
        f"{place}: the field {caption_key!r} is empty. Fill it in, remove the row, or use --data.on-bad-record skip."
      )
    if not name or not _is_file(self._directory / str(name)):
      raise DataError(
        f"{place}: there is no picture {str(name)!r} in {self._directory}. "
        "Correct the row, or use --data.on-bad-record skip."
      )
    try:
      "".join(texts).encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, written as \\ud800 in JSON
      raise DataError(f"{place}: the field {caption_key!r} is not Unicode text ({error}). Correct the row.") from error
    return str(name), texts


def _is_file(path: Path) -> bool:
  try:
    return path.is_file()
  except (OSError, ValueError):  # no file can have such a name
    return False


def _find_captions(directory: Path, given: str | None) -> Path:
  candidates = [directory / name for name in CAPTION_FILES] if given is None else [directory / given]
  try:
    if not directory.is_dir():
      raise DataError(f"--data.source.path {directory} is not a directory. Give the one with your pictures.")
    found = [path for path in candidates if path.is_file()]
  except OSError as error:
    raise DataError(f"Cannot read the directory {directory}: {error.strerror}. Check its permissions.") from error
  if not found:
    raise DataError(
      f"{directory} has no {' or '.join(path.name for path in candidates)}. "
      "Write one with the columns image and caption, or name yours with --data.source.captions-file FILE."
    )
  return found[0]


def _rows(file: Path) -> Iterator[tuple[int, dict]]:
  """(line number, row) of a CSV with a header, or of a file with a JSON object a line."""
  try:
    with file.open(encoding="utf-8-sig", newline="") as lines:
      if file.suffix == ".csv":
        reader = csv.DictReader(_lines(lines, file))
        for row in reader:
          yield reader.line_num, row
        return
      for number, line in enumerate(_lines(lines, file), 1):
        if line.strip():
          yield number, _object(line, f"{file}, line {number}")
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise DataError(f"Cannot read {file}: {error}. It must be UTF-8 CSV with a header, or JSONL.") from error


def _lines(lines: TextIO, file: Path) -> Iterator[str]:
  """The lines of a file, none longer than MAX_LINE in memory."""
  number = 0
  while line := lines.readline(MAX_LINE + 1):
    number += 1
    if len(line) > MAX_LINE:
      raise DataError(f"{file}, line {number}: longer than {MAX_LINE} characters. No caption is; correct the row.")
    yield line


def _object(line: str, place: str) -> dict:
  try:
    row = json.loads(line)
  except (ValueError, RecursionError) as error:  # ValueError: also a number with more digits than Python reads
    raise DataError(f"{place}: not JSON ({error}). Each line must be one object.") from error
  if not isinstance(row, dict):
    raise DataError(f"{place}: is not a JSON object with fields such as image and caption.")
  return row


def _column(row: Mapping, given: str | None, known: tuple[str, ...], place: str, option: str) -> str:
  if given is not None:
    if given not in row:
      raise DataError(f"{place}: there is no column {given!r}, only {', '.join(map(str, row))}. Check {option}.")
    return given
  for name in known:
    if name in row:
      return name
  raise DataError(
    f"{place}: none of the columns {', '.join(known)} is there, only {', '.join(map(str, row))}. "
    f"Rename one, or name it with {option} COLUMN."
  )


def _split(name: str, row: Mapping) -> str:
  if row.get("split"):
    return "train" if str(row["split"]).strip().lower() in ("train", "training") else "validation"
  digest = int.from_bytes(hashlib.sha256(name.encode(errors="surrogatepass")).digest()[:8], "big")
  return "validation" if digest < VALIDATION_FRACTION * 2**64 else "train"
