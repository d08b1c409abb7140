"""Reader of a table in one file: CSV, TSV or Parquet."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.annotations import Complaints
from mmjax.data.errors import DataError
from mmjax.data.separated import DELIMITERS, file_lines, header, read_cells

PARQUET = (".parquet", ".pq")
RESERVED = ("concept", "captions", "missing")
"""Fields of a record that the source makes, and that no column of the file may be called."""
MAX_BYTES = 2**31
"""Largest Parquet table, in uncompressed bytes. Tables are held in memory."""

Row = Mapping[str, Any]


class TableRows(NamedTuple):
  """The rows of a file.

  Attributes:
    file: the file.
    names: names of the columns.
    rows: the good rows.
    numbers: number of each row in the file, from 1, without the line of names.
    typed: False for CSV and TSV, in which all values are texts.
  """

  file: Path
  names: list[str]
  rows: list[Row]
  numbers: Sequence[int]
  typed: bool

  def where(self, place: int) -> str:
    """Name of a row in errors and reports."""
    return f"{self.file}, row {self.numbers[place]}"


def read_table(file: Path, complaints: Complaints, image: str = "") -> TableRows:
  """Read a table: texts from CSV, typed values from Parquet.

  CSV may have semicolons or tabs: the delimiter that gives most columns counts.

  Args:
    file: the file. Its extension says what it is.
    complaints: handling of bad rows.
    image: column with image files; "": none.
  Raises: DataError: the file cannot be read, has no rows, has two columns of one name or one of a reserved name, or a
    row is wrong. The message names file and row.
  """
  kind = file.suffix.lower()
  if kind not in (*DELIMITERS, *PARQUET):
    raise DataError(f"{file}: a table is {', '.join((*DELIMITERS, *PARQUET))}. Rename it to what it is.")
  table = _parquet(file) if kind in PARQUET else _separated(file, complaints, image)
  for name in table.names:
    if table.names.count(name) > 1 or name in RESERVED or not name:
      count = table.names.count(name)
      fault = "is reserved" if name in RESERVED else f"is there {count} times" if name else "has no name"
      raise DataError(f"{file}: the column {name!r} {fault}. Rename it.")
  if not table.rows:
    raise DataError(f"{file}: the table has no rows, only the columns {', '.join(map(repr, table.names))}. Add rows.")
  return table


def _separated(file: Path, complaints: Complaints, image: str) -> TableRows:
  rows: list[Row] = []
  numbers: list[int] = []
  try:
    with file.open(encoding="utf-8-sig", newline="") as opened:
      lines = file_lines(opened, file)
      names, delimiter = _header(next(lines, ""), file)
      column = names.index(image) if image in names else None

      def is_row(values: Sequence[str], line: Sequence[str]) -> bool:
        return _is_row(values, line) if column is None else _is_file(file.parent, line, column)

      for number, cells in enumerate(read_cells(lines, file, names, delimiter, is_row), 1):
        if isinstance(cells, DataError):
          complaints.add(f"{file}, row {number}, {str(cells).removeprefix(f'{file}, ')}")
          continue
        rows.append(dict(zip(names, cells.values, strict=True)))
        numbers.append(number)
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"Cannot read {file}: {error}. It must be {file.suffix} with a line of names, in UTF-8.") from error
  return TableRows(file, names, rows, numbers, typed=False)


def _header(line: str, file: Path) -> tuple[list[str], str]:
  """Names of the columns, and the delimiter: the one with most names."""
  found: list[tuple[list[str], str]] = []
  for delimiter in DELIMITERS[file.suffix.lower()]:
    try:
      found.append((header(line, delimiter), delimiter))
    except csv.Error:
      continue
  if not found:
    raise DataError(f"{file}, line 1: wrong double quotes in the names of the columns. Correct them.")
  return max(found, key=lambda item: len(item[0]))  # of equal ones the first


def _is_row(values: Sequence[str], line: Sequence[str]) -> bool:
  """True if a line has as many values as a row, and a number where the row has one."""
  return len(values) == len(line) and any(_is_number(a) and _is_number(b) for a, b in zip(values, line, strict=True))


def _is_number(text: str) -> bool:
  try:
    return bool(float(text)) or True
  except ValueError:
    return False


def _is_file(folder: Path, line: Sequence[str], column: int) -> bool:
  try:
    return len(line) > column and line[column] != "" and (folder / line[column]).is_file()
  except (OSError, ValueError):  # no file can have such a name
    return False


def _parquet(file: Path) -> TableRows:
  try:
    import pyarrow
    from pyarrow import parquet
  except ImportError as error:
    raise DataError(f"{file}: Parquet needs the package pyarrow. Install it, or write the table as CSV.") from error
  try:
    with parquet.ParquetFile(file) as opened:
      metadata = opened.metadata
      size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
      if size > MAX_BYTES:
        raise DataError(f"{file}: the table has {size} bytes; up to {MAX_BYTES} are read. Split it.")
      table = opened.read()
    try:
      rows = table.to_pylist()
    except ValueError as error:  # of a time that no whole number of microseconds gives
      fine = [field.name for field in table.schema if getattr(field.type, "unit", "") == "ns"]
      if not fine:
        raise
      raise DataError(
        f"{file}: the column {fine[0]!r} has times in nanoseconds ({error!s:.60}...). Write them as microseconds, "
        "timestamp('us'), or as seconds in a float."
      ) from error
    return TableRows(file, list(table.column_names), rows, range(1, len(rows) + 1), typed=True)
  except DataError:
    raise
  except (OSError, ValueError, OverflowError, NotImplementedError, MemoryError, pyarrow.ArrowException) as error:
    raise DataError(f"Cannot read {file}: {error}. It must be a Parquet file.") from error
