"""Values that columns learn from the training data, and the file in the workdir that stores them."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mmjax.data.columns.base import Column, lacking, lacks_field
from mmjax.data.errors import DataError
from mmjax.files import write_atomically


def check_fields(columns: Mapping[str, Column], source: Any, *, skip: bool = False, stream: str = "") -> None:
  """Check before the training that the records have the fields that the columns read.

  The first record is read. All are searched for a field that it lacks if records may lack it.

  Args:
    columns: the columns by name.
    source: the training records.
    skip: True if bad records are left out.
    stream: name of the stream of the columns. Empty: the rows of data.source.
  Raises: DataError: a field is missing. The message names the column, its setting and the fields that are there.
  """
  without = getattr(source, "without_image", source.__getitem__)
  first: Mapping[str, Any] = next(_good(source.__getitem__, len(source), skip), {})
  option = f"--data.streams.{stream}.columns" if stream else "--data.columns"
  for name, column in columns.items() if first else ():
    read = without if column.optional else source.__getitem__
    for field in column.fields:
      if field not in first and not (
        (skip or column.optional) and any(field in record for record in _good(read, len(source), skip))
      ):
        raise lacks_field(name, column, first, field, option=option)


def _good(read: Callable[[int], Any], size: int, skip: bool) -> Iterator[Any]:
  """The records that can be read."""
  for index in range(size):
    try:
      yield read(index)
    except DataError:
      if not skip:
        raise


def fit_columns(columns: Mapping[str, Column], source: Any) -> dict[str, Any]:
  """Call `fit` of the columns that need it. Returns the results by column name, as JSON values."""
  learnt = {name: _fit(name, column, source) for name, column in columns.items() if column.fits}
  return json.loads(json.dumps(learnt))  # the same values as after reading the file: tuples become lists


def _fit(name: str, column: Column, source: Any) -> Any:
  try:
    return column.fit(source)
  except KeyError as error:
    raise lacking(name, column, source[0], error) from error


def stream_column(stream: str, column: str) -> str:
  """Key of a column of a stream among the values of a run: STREAM/COLUMN, or COLUMN for the data.source of the run."""
  return f"{stream}/{column}" if stream else column


def of_stream(learnt: Mapping[str, Any], stream: str) -> dict[str, Any]:
  """The values of the columns of one stream, by column name."""
  return {key.rpartition("/")[2]: value for key, value in learnt.items() if key.rpartition("/")[0] == stream}


def save_columns(learnt: Mapping[str, Any], path: Path) -> None:
  """Write the results of fit_columns. Writes no file if there are none."""
  if learnt:
    write_atomically(path, json.dumps(learnt, indent=2) + "\n")


def load_columns(path: Path) -> dict[str, Any]:
  """Read the file of save_columns. Raises DataError, which names the file, if it is damaged."""
  if not path.exists():
    return {}
  try:
    learnt = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise DataError(f"Cannot read {path}: {error}. Restore it from the same run.") from error
  if not isinstance(learnt, dict):
    raise DataError(f"{path} has no values of columns. Restore it from the same run.")
  return learnt
