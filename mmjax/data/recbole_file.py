"""Atomic files of RecBole (Zhao et al. 2021): tab-separated tables whose header gives the type of each field."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmjax.data.errors import DataError

MAX_BYTES = 2**31
"""Largest file. Tables are held in memory."""
TYPES: Mapping[str, Callable[[str], Any]] = {
  "token": str,
  "token_seq": lambda cell: tuple(cell.split(" ")) if cell else (),
  "float": float,
  "float_seq": lambda cell: tuple(float(number) for number in cell.split(" ")) if cell else (),
}
"""Types of fields: a name, names, a number, numbers. Names and numbers of a sequence stand between spaces."""


def read_atomic(file: Path) -> list[dict[str, Any]]:
  """Read an atomic file: one mapping from fields to values for each line. An empty number is None.

  Raises: DataError: the file cannot be read, its header is wrong, a line has another number of fields, or a number is
    none. The message names file, line and field.
  """
  try:
    if file.stat().st_size > MAX_BYTES:
      raise DataError(f"{file} has {file.stat().st_size} bytes; up to {MAX_BYTES} are read. Split it.")
    lines = file.read_text(encoding="utf-8-sig").split("\n")
  except (OSError, UnicodeDecodeError) as error:
    raise DataError(f"Cannot read {file}: {error}. It must be an atomic file of RecBole, in UTF-8.") from error
  heads = [head.rpartition(":") for head in lines[0].rstrip("\r").split("\t")]
  for name, _, kind in heads:
    if not name or kind not in TYPES:
      raise DataError(
        f"{file}, line 1: {name + ':' + kind!r:.60} is not the name and the type of a field. Write NAME:TYPE, with one "
        f"of {', '.join(TYPES)}."
      )
  names = [name for name, _, _ in heads]
  if len(set(names)) < len(names):
    raise DataError(f"{file}, line 1: two fields have the same name; there are {', '.join(names)[:200]}. Rename one.")
  return [_row(file, place, heads, line) for place, line in enumerate(lines[1:], 2) if line.strip()]


def _row(file: Path, place: int, heads: list[tuple[str, str, str]], line: str) -> dict[str, Any]:
  cells = line.rstrip("\r").split("\t")
  if len(cells) != len(heads):
    raise DataError(f"{file}, line {place}: {len(cells)} fields, and the header has {len(heads)}. Correct the line.")
  row: dict[str, Any] = {}
  for (name, _, kind), cell in zip(heads, cells, strict=True):
    try:
      row[name] = None if kind == "float" and not cell else TYPES[kind](cell)
    except ValueError as error:
      raise DataError(f"{file}, line {place}: the field {name!r} is {cell!r:.60}, not {kind}. Correct it.") from error
  return row
