"""Files with captions: CSV, TSV and the like with a header, and JSON lines."""

import csv
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from mmjax.data.captions import CAPTION_FIELDS, json_object
from mmjax.data.errors import DataError
from mmjax.data.split_names import find_column

IMAGE_COLUMNS = ("image", "file_name", "filename", "filepath")
SOUND_COLUMNS = ("sound", "audio", "file_name", "filename", "filepath", "path")
VIDEO_COLUMNS = ("video", "file_name", "filename", "filepath", "path")
DELIMITERS = {".csv": ",;\t", ".tsv": "\t,;", ".tab": "\t,;"}
"""Delimiters by file extension. The first with which the header has the columns is the file's."""
JSON_LINES = (".jsonl", ".ndjson", ".json")
SPLIT = "split"
MAX_LINE = 1_000_000


@dataclasses.dataclass(frozen=True)
class Keys:
  """Names of the columns, as they were given. None: the usual names."""

  image: str | None = None
  caption: str | None = None
  columns: tuple[str, ...] = IMAGE_COLUMNS
  """Usual names of the column with the file."""

  def find(self, names: Sequence[str], place: str) -> tuple[str, str, str | None]:
    """Find the columns of the image, of the caption, and of the split, which may be None.

    The usual names count in any case of letters.

    Raises: DataError: one of the first two is not there, or one is there twice.
    """
    image = _column(names, self.image, self.columns, place, "--data.source.image-key")
    caption = _column(names, self.caption, CAPTION_FIELDS, place, "--data.source.caption-key")
    for name in (image, caption):
      if names.count(name) > 1:
        raise DataError(f"{place}: the column {name!r} is there {names.count(name)} times. Rename all but one.")
    return image, caption, find_column(names, SPLIT, place)


class Row(NamedTuple):
  """One row. The values are as in the file, and not checked.

  Attributes:
    place: file and line.
    image: value of the column of the image.
    caption: value of the column of the caption, whose name is `key`.
    key: name of the column of the caption.
    split: value of the column `split`, in any case of letters. None: there is none.
  """

  place: str
  image: Any
  caption: Any
  key: str
  split: Any


def read_rows(file: Path, keys: Keys) -> Iterator[Row | DataError]:
  """Read the rows of a file of captions.

  Args:
    file: the file. Its extension says what it is, in upper or lower case.
    keys: names of the columns.
  Returns: an iterator over the rows. In place of a damaged row comes the error that names it.
  Raises: DataError: the file as a whole cannot be read.
  """
  kind = file.suffix.lower()
  if kind not in (*DELIMITERS, *JSON_LINES):
    raise DataError(
      f"{file}: a file of captions is {', '.join(DELIMITERS)} or {', '.join(JSON_LINES)}. Rename it to what it is."
    )
  read = _separated if kind in DELIMITERS else _json_lines
  try:
    with file.open(encoding="utf-8-sig", newline="") as lines:
      yield from read(_lines(lines, file), file, keys)
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"Cannot read {file}: {error}. It must be CSV or TSV with a header, or JSONL, in UTF-8.") from error


def _json_lines(lines: Iterator[str], file: Path, keys: Keys) -> Iterator[Row | DataError]:
  for number, line in enumerate(lines, 1):
    place = f"{file}, line {number}"
    if line.strip():
      try:
        row = json_object(line, place, "Each line must be one object.")
        image, caption, split = keys.find(list(row), place)
        yield Row(place, row[image], row[caption], caption, None if split is None else row[split])
      except DataError as error:
        yield error


def _separated(lines: Iterator[str], file: Path, keys: Keys) -> Iterator[Row | DataError]:
  names, delimiter = _header(next(lines, ""), file, keys)
  image, caption, split = keys.find(names, f"{file}, line 1")
  columns = names.index(image), names.index(caption), None if split is None else names.index(split)
  reader = csv.reader(lines, delimiter=delimiter, strict=True)
  while True:
    line = reader.line_num + 2
    try:
      values = next(reader, None)
    except csv.Error as error:
      yield _quotes(error, f"{file}, line {line}", reader.line_num + 1)
      continue
    if values is None:
      return
    if values:  # not an empty line
      yield _row(values, names, columns, f"{file}, line {line}", delimiter)


def _row(
  values: Sequence[str], names: Sequence[str], columns: tuple[int, int, int | None], place: str, delimiter: str
) -> Row | DataError:
  """The row of some values. `columns`: places of the image, the caption and the split."""
  if len(values) != len(names):
    return DataError(
      f"{place}: {len(values)} fields, and the header has {len(names)}. Put a text that contains {delimiter!r} "
      "between double quotes."
    )
  image, caption, split = values[columns[0]], values[columns[1]], columns[2]
  if any(text.startswith(" ") and text.lstrip().startswith('"') for text in (image, caption)):
    return DataError(
      f"{place}: a space before a double quote, which makes the quote part of the text. Remove the space."
    )
  return Row(place, image, caption, names[columns[1]], None if split is None else values[split])


def _header(line: str, file: Path, keys: Keys) -> tuple[list[str], str]:
  """Names of the columns, and the delimiter: the first with which the columns are there, else the most frequent."""
  found: list[tuple[list[str], str]] = []
  for delimiter in DELIMITERS[file.suffix.lower()]:
    try:
      names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
      found.append((names, delimiter))
      keys.find(names, "")
      return names, delimiter
    except (csv.Error, DataError):
      continue
  return max(found, key=lambda item: len(item[0]), default=([], ","))


def _quotes(error: csv.Error, place: str, last: int) -> DataError:
  """The error for wrong quotes. Raises it where the rest of a long field would be read as rows."""
  message = (
    f"{place} (to line {last}): {error}. Put a text with double quotes between double quotes, and double those inside."
  )
  if "field larger" in str(error):
    raise DataError(message) from error
  return DataError(message)


def _lines(lines: TextIO, file: Path) -> Iterator[str]:
  """The lines of a file, none longer than MAX_LINE in memory."""
  number = 0
  while line := lines.readline(MAX_LINE + 1):
    number += 1
    if len(line) > MAX_LINE:
      raise DataError(f"{file}, line {number}: longer than {MAX_LINE} characters. No caption is; correct the row.")
    yield line


def _known(names: Sequence[str], known: tuple[str, ...], place: str) -> str | None:
  """The first of the usual names that is there as it is, or else in another case of letters."""
  exact = next((name for name in known if name in names), None)
  return exact or next((found for name in known if (found := find_column(names, name, place))), None)


def _column(names: Sequence[str], given: str | None, known: tuple[str, ...], place: str, option: str) -> str:
  found = _known(names, known, place) if given is None else given
  there = ", ".join(map(repr, names)) or "an empty line"
  if found is None:
    raise DataError(
      f"{place}: none of the columns {', '.join(known)} is there, only {there}. "
      f"Rename one, or name it with {option} COLUMN."
    )
  if found not in names:
    raise DataError(f"{place}: there is no column {found!r}, only {there}. Check {option}.")
  return found
