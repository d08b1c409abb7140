"""Rows of CSV and TSV: one rule for all readers of them."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from mmjax.data.downloads import instead
from mmjax.data.errors import DataError

DELIMITERS = {".csv": ",;\t", ".tsv": "\t,;", ".tab": "\t,;"}
"""Delimiters by file extension, in order of preference."""
MAX_LINE = 1_000_000


class Cells(NamedTuple):
  """Values of a row, and its first line."""

  line: int
  values: list[str]


def header(line: str, delimiter: str) -> list[str]:
  """Names of the columns. Raises csv.Error if quotes are wrong."""
  return [name.strip() for name in next(csv.reader([line], delimiter=delimiter, strict=True), [])]


def read_cells(
  lines: Iterator[str],
  file: Path,
  names: Sequence[str],
  delimiter: str,
  is_row: Callable[[Sequence[str], Sequence[str]], bool],
) -> Iterator[Cells | DataError]:
  """Read the rows after the header. In place of a damaged row comes the error that names it.

  Args:
    lines: the lines after the first one.
    file: the file, for errors.
    names: names of the columns.
    delimiter: character between the values.
    is_row: function of the values of a row, and those of a line in the middle of one of its texts: true if these look
      like a row. The text is then refused, because a double quote is missing and has swallowed rows.
  Raises: DataError: the rest of a long field would be read as rows.
  """
  reader = csv.reader(lines, delimiter=delimiter, strict=True)
  while True:
    line = reader.line_num + 2
    place = f"{file}, line {line}"
    try:
      values = next(reader, None)
    except csv.Error as error:
      yield _quotes(error, place, reader.line_num + 1)
      continue
    if values is None:
      return
    if values:  # not an empty line
      wrong = _fault(values, names, delimiter, is_row)
      yield Cells(line, values) if wrong is None else DataError(f"{place}: {wrong}")


def file_lines(lines: TextIO, file: Path) -> Iterator[str]:
  """The lines of a file, none longer than MAX_LINE in memory."""
  number = 0
  while line := lines.readline(MAX_LINE + 1):
    number += 1
    if number == 1 and (found := instead(line[:1000].encode(errors="replace"))):
      raise DataError(f"{file} {found}.")
    if len(line) > MAX_LINE:
      raise DataError(f"{file}, line {number}: longer than {MAX_LINE} characters. No caption is; correct the row.")
    yield line


def _fault(
  values: Sequence[str], names: Sequence[str], delimiter: str, is_row: Callable[[Sequence[str], Sequence[str]], bool]
) -> str | None:
  if len(values) != len(names):
    return (
      f"{len(values)} fields, and the header has {len(names)}. Put a text that contains {delimiter!r} between double "
      "quotes."
    )
  for name, value in zip(names, values, strict=True):
    if value[:1] == " " and value.lstrip()[:1] == '"':
      return "a space before a double quote, which makes the quote part of the text. Remove the space."
    if "\0" in value:
      return f"the field {name!r} has a NUL character. Remove it, or write the file as UTF-8."
    for line in re.split(r"[\r\n]+", value)[1:]:
      parts = [part.strip().strip('"') for part in line.split(delimiter)]
      if len(parts) > 1 and is_row(values, parts):
        return (
          f"the field {name!r} goes over several lines, and one looks like a row ({line!r:.60}): a double quote is "
          "missing or too many. Double those inside of a text."
        )
  return None


def _quotes(error: csv.Error, place: str, last: int) -> DataError:
  """The error for wrong quotes. Raises it where the rest of a long field would be read as rows."""
  message = (
    f"{place} (to line {last}): {error}. Put a text with double quotes between double quotes, and double those inside."
  )
  if "field larger" in str(error):
    raise DataError(message) from error
  return DataError(message)
