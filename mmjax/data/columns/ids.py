"""Column of names of things, such as items and words, as places in a vocabulary."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from mmjax.data.columns.base import Column, Evaluating, Example, Maker, Making, Shapes
from mmjax.data.columns.table import without_images
from mmjax.data.errors import DataError

PADDING, UNKNOWN, FIRST = 0, 1, 2
"""Ids after the last name of a record, of a name that is not in the vocabulary, and of its first name."""


@dataclasses.dataclass(frozen=True)
class Ids(Column):
  """The name or the names in a field of a record, int32 [length]: places in a vocabulary.

  0 is padding, at the end. 1 is a name that is unknown or rare, 2 and more are the names of the vocabulary. It is
  learned from the training split and saved with the run. Of more names than `length`, the first ones are kept.
  """

  field: str = "item"
  """Field of the record: a text, a whole number, or a list of these."""
  names: str = ""
  """Field that the vocabulary is learned from. Two columns that read things of one kind name the same field. Empty:
  `field`."""
  length: int = 1
  """Number of ids in a row."""
  min_count: int = 1
  """Names that the training records have fewer times are rare."""

  def __post_init__(self) -> None:
    if self.length < 1 or self.min_count < 1:
      raise ValueError(f"length={self.length} and min_count={self.min_count} must be at least 1")

  @property
  def fields(self) -> tuple[str, ...]:
    return tuple(dict.fromkeys((self.field, self.names or self.field)))

  def arrays(self, name: str, making: Making) -> Shapes:
    return {name: ((self.length,), np.int32)}

  def check(self, record: Mapping[str, Any]) -> None:
    named(record, self.field)

  def fit(self, records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Learn the vocabulary: {"ids": sorted names}. Raises DataError if there is no name."""
    counts: Counter[str] = Counter()
    for record in without_images(records):
      counts.update(named(record, self.names or self.field))
    found = sorted(name for name, count in counts.items() if count >= self.min_count)
    if not found:
      raise DataError(
        f"the field {self.names or self.field!r} of {len(records)} training records has no name that is there "
        f"{self.min_count} times: nothing can be learned. Add records, or lower min_count."
      )
    return {"ids": found}

  def row(self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any) -> np.ndarray:
    row = np.zeros(self.length, np.int32)
    _write(row, named(record, self.field), vocabulary(fitted))
    return row

  def maker(self, name: str, making: Making) -> Maker:
    return _IdsMaker(name, self.field, self.length, vocabulary(making.fitted.get(name)))

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    rows, known = np.zeros((len(records), self.length), np.int32), vocabulary(evaluating.fitted.get(name))
    for row, record in zip(rows, records, strict=True):
      _write(row, named(record, self.field), known)
    return {name: rows[places]}

  def record(self, item: Any) -> Mapping[str, Any]:
    return {self.field: item, "id": "the names"}

  def show(self, record: Mapping[str, Any]) -> str:
    return escape(", ".join(named(record, self.field)[: self.length]))


@dataclasses.dataclass(frozen=True)
class _IdsMaker(Maker):
  """Maker of the ids of one field. `known` are the ids of the names."""

  name: str
  field: str
  length: int
  known: Mapping[str, int]

  def begin(self, rows: int) -> np.ndarray:
    return np.zeros((rows, self.length), np.int32)

  def fill(self, buffer: np.ndarray, row: int, example: Example) -> None:
    _write(buffer[row], named(example.record, self.field), self.known)

  def end(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
    return {self.name: buffer}


def _write(row: np.ndarray, names: Sequence[str], known: Mapping[str, int]) -> None:
  ids = [known.get(name, UNKNOWN) for name in names[: len(row)]]
  row[: len(ids)] = ids


def vocabulary(fitted: Any) -> dict[str, int]:
  """The id of each name, from the result of `Ids.fit`. Raises DataError if it is that of another column."""
  if not isinstance(fitted, Mapping) or "ids" not in fitted:
    raise DataError("the run has no vocabulary of a column of ids (columns.json): restore the file, or train again")
  return {name: FIRST + place for place, name in enumerate(fitted["ids"])}


def named(record: Mapping[str, Any], field: str) -> Sequence[str]:
  """The names in a field of a record. Raises DataError if there is no such field, or if it has something else."""
  if field not in record:
    raise DataError(
      f"{record['id']}: there is no field {field!r}, which a column Ids reads; there are "
      f"{', '.join(map(repr, sorted(record)))}. Restore it, or change the settings of the column."
    )
  value = record[field]
  each = value if isinstance(value, list | tuple) else (value,)
  if set(map(type, each)) <= {str}:
    return each
  if not all(isinstance(one, str | int | np.integer) and not isinstance(one, bool) for one in each):
    raise DataError(
      f"{record['id']}: the field {field!r} is {value!r:.60}, not a name or a list of names. Correct it, or name "
      "another field."
    )
  return [str(one) for one in each]
