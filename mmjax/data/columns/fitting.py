"""What columns learn of the training data, and the file that keeps it beside a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.data.columns.base import Column
from mmjax.data.errors import DataError
from mmjax.files import write_atomically


def fit_columns(columns: Mapping[str, Column], source: Any) -> dict[str, Any]:
  """What each column that learns of the data has learnt of it, by name, as JSON values."""
  learnt = {name: column.fit(source) for name, column in columns.items() if column.fits}
  return json.loads(json.dumps(learnt))  # as it will be read again: tuples are lists


def save_columns(learnt: Mapping[str, Any], path: Path) -> None:
  """Writes it; nothing where no column learns."""
  if learnt:
    write_atomically(path, json.dumps(learnt, indent=2) + "\n")


def load_columns(path: Path) -> dict[str, Any]:
  """What save_columns wrote. Raises DataError, which names the file."""
  if not path.exists():
    return {}
  try:
    learnt = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    raise DataError(f"Cannot read {path}: {error}. Restore it from the same run.") from error
  if not isinstance(learnt, dict):
    raise DataError(f"{path} does not say what columns have learnt. Restore it from the same run.")
  return learnt
