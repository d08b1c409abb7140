"""Files with captions: CSV, TSV and the like with a header, and JSON lines."""

import csv
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.captions import CAPTION_FIELDS, json_object
from mmjax.data.errors import DataError
from mmjax.data.separated import DELIMITERS, file_lines, header, read_cells
from mmjax.data.split_names import find_column

IMAGE_COLUMNS = ("image", "file_name", "filename", "filepath")
SOUND_COLUMNS = ("sound", "audio", "file_name", "filename", "filepath", "path")
VIDEO_COLUMNS = ("video", "file_name", "filename", "filepath", "path")
JSON_LINES = (".jsonl", ".ndjson", ".json")
SPLIT = "split"


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
    typed: False for CSV and TSV, in which all values are texts.
  """

  place: str
  image: Any
  caption: Any
  key: str
  split: Any
  typed: bool


def read_rows(file: Path, keys: Keys, is_file: Callable[[str], bool]) -> Iterator[Row | DataError]:
  """Read the rows of a file of captions.

  Args:
    file: the file. Its extension says what it is, in upper or lower case.
    keys: names of the columns.
    is_file: function of a name: true if there is such a file. A text with a line that names one has swallowed rows.
  Returns: an iterator over the rows. In place of a damaged row comes the error that names it.
  Raises: DataError: the file as a whole cannot be read.
  """
  kind = file.suffix.lower()
  if kind not in (*DELIMITERS, *JSON_LINES):
    raise DataError(
      f"{file}: a file of captions is {', '.join(DELIMITERS)} or {', '.join(JSON_LINES)}. Rename it to what it is."
    )
  try:
    with file.open(encoding="utf-8-sig", newline="") as lines:
      if kind in DELIMITERS:
        yield from _separated(file_lines(lines, file), file, keys, is_file)
      else:
        yield from _json_lines(file_lines(lines, file), file, keys)
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"Cannot read {file}: {error}. It must be CSV or TSV with a header, or JSONL, in UTF-8.") from error


def _json_lines(lines: Iterator[str], file: Path, keys: Keys) -> Iterator[Row | DataError]:
  for number, line in enumerate(lines, 1):
    place = f"{file}, line {number}"
    if line.strip():
      try:
        row = json_object(line, place, "Each line must be one object.")
        image, caption, split = keys.find(list(row), place)
        yield Row(place, row[image], row[caption], caption, None if split is None else row[split], True)
      except DataError as error:
        yield error


def _separated(
  lines: Iterator[str], file: Path, keys: Keys, is_file: Callable[[str], bool]
) -> Iterator[Row | DataError]:
  names, delimiter = _header(next(lines, ""), file, keys)
  image, caption, split = (None if name is None else names.index(name) for name in keys.find(names, f"{file}, line 1"))
  assert image is not None and caption is not None

  def is_row(values: Sequence[str], line: Sequence[str]) -> bool:
    return len(line) > image and line[image] != "" and is_file(line[image])

  for cells in read_cells(lines, file, names, delimiter, is_row):
    if isinstance(cells, DataError):
      yield cells
    else:
      values = cells.values
      part = None if split is None else values[split]
      yield Row(f"{file}, line {cells.line}", values[image], values[caption], names[caption], part, False)


def _header(line: str, file: Path, keys: Keys) -> tuple[list[str], str]:
  """Names of the columns, and the delimiter: the first with which the columns are there, else the most frequent."""
  found: list[tuple[list[str], str]] = []
  for delimiter in DELIMITERS[file.suffix.lower()]:
    try:
      names = header(line, delimiter)
      found.append((names, delimiter))
      keys.find(names, "")
      return names, delimiter
    except (csv.Error, DataError):
      continue
  return max(found, key=lambda item: len(item[0]), default=([], ","))


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
