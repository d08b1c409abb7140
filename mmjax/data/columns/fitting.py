"""Values that columns learn from the training data, and the file in the workdir that stores them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.data.columns.base import Column, lacks_field
from mmjax.data.errors import DataError
from mmjax.files import write_atomically


def fit_columns(columns: Mapping[str, Column], source: Any) -> dict[str, Any]:
  """Call `fit` of the columns that need it. Returns the results by column name, as JSON values."""
  learnt = {name: _fit(name, column, source) for name, column in columns.items() if column.fits}
  return json.loads(json.dumps(learnt))  # the same values as after reading the file: tuples become lists


def _fit(name: str, column: Column, source: Any) -> Any:
  try:
    return column.fit(source)
  except KeyError as error:
    raise lacks_field(name, column, source[0], error) from error


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
