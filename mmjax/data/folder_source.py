"""A user's own pictures: a directory, and a CSV or JSONL that says what each picture shows."""

import csv
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError, unknown
from mmjax.data.sources import Record, concept_number
from mmjax.data.transforms import PRIMARY

CAPTION_FILES = ("captions.csv", "captions.jsonl", "metadata.csv", "metadata.jsonl")
IMAGE_COLUMNS = ("image", "file_name", "filename", "filepath")
CAPTION_COLUMNS = ("caption", "text", "title")
SPLITS = ("train", "validation", "all")
VALIDATION_FRACTION = 0.05
MAX_LINE = 1_000_000
log = logging.getLogger(__name__)


class FolderSource:
  """The pictures of a directory that its caption file lists, one record per picture, in the file's order.

  Args:
    directory: file names in the caption file are relative to it.
    split: "train", "validation" or "all". A column `split` decides where there is one ("train", or anything
      else for validation); else a hash of the file name keeps about 5% for validation, always the same ones.
    captions_file: the caption file; by default the one of CAPTION_FILES that exists.
    image_column: the column with the file name; by default the one of IMAGE_COLUMNS that exists.
    caption_column: the column with the caption; by default the one of CAPTION_COLUMNS that exists. Several
      rows may caption the same picture, and in JSONL the value may be a list.
    skip: leave out bad rows (empty caption, missing picture) instead of raising; `num_skipped` counts them.
    max_bytes: of a picture file; a larger one is refused unread.

  Raises:
    DataError: naming the file, the row and the column, and what to do.
  """

  def __init__(
    self,
    directory: str | Path,
    split: str = "all",
    *,
    captions_file: str | Path | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    skip: bool = False,
    max_bytes: int = DataConfig.max_record_mb * 2**20,
  ):
    if split not in SPLITS:
      raise unknown("split of a folder", split, SPLITS)
    self._directory = Path(directory).expanduser()
    self.num_skipped, self._max_bytes = 0, max_bytes
    file = _find_captions(self._directory, captions_file)
    captions: dict[str, list[str]] = {}
    chosen: dict[str, str] = {}
    for line, row in _rows(file):
      place = f"{file}, line {line}"
      image_key = _column(row, image_column, IMAGE_COLUMNS, place, "--data.image-key")
      caption_key = _column(row, caption_column, CAPTION_COLUMNS, place, "--data.caption-key")
      try:
        name, texts = self._entry(row, image_key, caption_key, place)
      except DataError as error:
        if not skip:
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

  @classmethod
  def from_config(cls, config: DataConfig, split: str) -> "FolderSource":
    """The folder that a configuration names."""
    return cls(
      str(config.path),
      split,
      captions_file=config.captions_file,
      image_column=config.image_key,
      caption_column=config.caption_key,
      skip=config.on_bad_record == "skip",
      max_bytes=config.max_record_mb * 2**20,
    )

  def __len__(self) -> int:
    return len(self._names)

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
    return Record(image=image, captions={PRIMARY: texts}, id=str(path), concept=concept_number(texts[0].casefold()))

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


def _find_captions(directory: Path, given: str | Path | None) -> Path:
  candidates = [directory / name for name in CAPTION_FILES] if given is None else [directory / given]
  try:
    if not directory.is_dir():
      raise DataError(f"--data.path {directory} is not a directory. Give the one with your pictures.")
    found = [path for path in candidates if path.is_file()]
  except OSError as error:
    raise DataError(f"Cannot read the directory {directory}: {error.strerror}. Check its permissions.") from error
  if not found:
    raise DataError(
      f"{directory} has no {' or '.join(path.name for path in candidates)}. "
      "Write one with the columns image and caption, or name yours with --data.captions-file FILE."
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
