"""Columns of the numbers and categories of a record, and of one number that is predicted."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32

from mmjax.data.columns.base import Column, Evaluating, Maker, Making, Shapes
from mmjax.data.columns.names import clean_name, place_of, two_of_one_meaning
from mmjax.data.errors import DataError

UNKNOWN = 0
"""Code of a category that is not in the training data, or is rare there."""
MISSING = ("", "na", "n/a", "null", "none")
WORDS = ("nan", "nat", "<na>", "#n/a", "\\n")
"""Texts for a missing value, in lower case, that are no categories: list them in `missing`."""
LARGEST = 1e30
"""Largest number, by its absolute value."""
QUANTILES = 101
"""Number of training quantiles that the scaling "quantile" keeps."""


@dataclasses.dataclass(frozen=True)
class Table(Column):
  """Numbers and categories of a record, float32 [fields, 2], in the order `numeric`, then `categorical`.

  [:, 0] holds the scaled number, or the code of the category: 0 for a category that is unknown or rare, otherwise its
  place in the vocabulary. [:, 1] is 1 where the value is missing, and [:, 0] is then 0. Scales and vocabularies are
  learned from the training split and saved with the run.
  """

  numeric: tuple[str, ...] = ()
  """Fields of the record with numbers (int, float, or text such as "3.5")."""
  categorical: tuple[str, ...] = ()
  """Fields of the record with categories (text, bool or whole number)."""
  scaling: Literal["standard", "quantile"] = "standard"
  """Scale of the numbers. "standard": standard deviations from the mean of the training data. "quantile": the normal
  score of the number's quantile in the training data, within about 3 (Gorishniy et al. 2021, section 4.2)."""
  min_count: int = 1
  """Categories with fewer training records are rare."""
  missing: tuple[str, ...] = MISSING
  """Texts that stand for a missing value, in lower case. The value None always does. Add "nan" if NaN does."""

  def __post_init__(self) -> None:
    fields = self.fields
    twice = [name for name, count in Counter(fields).items() if count > 1]
    if twice:
      raise ValueError(f"the field {twice[0]!r} of a table is listed {fields.count(twice[0])} times: list it once")
    if self.min_count < 1:
      raise ValueError(f"min_count={self.min_count} must be at least 1")

  @property
  def fields(self) -> tuple[str, ...]:
    """Names of the fields, in the order of the array."""
    return (*self.numeric, *self.categorical)

  def arrays(self, name: str, making: Making) -> Shapes:
    if not self.fields:
      raise DataError(
        f"the column {name!r} (Table) names no field of the records: set --data.columns.{name}.numeric or .categorical"
      )
    return {name: ((len(self.fields), 2), np.float32)}

  def check(self, record: Mapping[str, Any]) -> None:
    for field in self.fields:
      if field not in record:
        raise DataError(
          f"{record['id']}: there is no field {field!r}, which the column Table reads; there are "
          f"{', '.join(map(repr, sorted(record)))}. Restore it, or change the settings of the column."
        )
    for field in self.numeric:
      self.number(record, field)
    for field in self.categorical:
      self.category(record, field)

  def fit(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Learn the scale of every number and the vocabulary of every category.

    Returns: {"scaling": ..., "numeric": {field: scale}, "categorical": {field: sorted names}}. A scale is {"mean": m,
      "std": s}, or {"quantiles": values}.
    Raises: DataError: there is no record, or a field is missing, is of another type, or has no value at all.
    """
    numbers: dict[str, list[float]] = {field: [] for field in self.numeric}
    names: dict[str, Counter[str]] = {field: Counter() for field in self.categorical}
    for record in without_images(records):
      self.check(record)
      for field in self.numeric:
        numbers[field] += [value for value in (self.number(record, field),) if value is not None]
      for field in self.categorical:
        names[field].update(value for value in (self.category(record, field),) if value is not None)
    for field, found in (numbers | names).items():
      if not found:
        raise DataError(
          f"the field {field!r} of the table is missing in all {len(records)} training records, so that nothing can be "
          "learned from it: fill it, or leave it out of the column"
        )
    for field, counts in names.items():
      if two := two_of_one_meaning(counts):
        raise DataError(
          f"the field {field!r} of the table has the categories {two[0]!r} and {two[1]!r}, which are one value: "
          "write one of them in all records."
        )
      if words := [name for name in counts if name.casefold() in WORDS]:
        raise DataError(
          f"the field {field!r} of the table has {words[0]!r} as a category, which stands for a missing value: leave "
          f"the field empty there, or list {words[0].casefold()!r} in `missing`"
        )
    common = {f: sorted(n for n, count in found.items() if count >= self.min_count) for f, found in names.items()}
    scales = {field: self._scale(np.array(values, np.float64)) for field, values in numbers.items()}
    return {"scaling": self.scaling, "numeric": scales, "categorical": common}

  def row(
    self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any
  ) -> Float32[np.ndarray, "fields 2"]:
    codes = self.coder(fitted)
    return np.array([codes(record, field) for field in self.fields], np.float32)

  def maker(self, name: str, making: Making) -> Maker:
    self.coder(making.fitted.get(name))
    return super().maker(name, making)

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    for record in records:
      self.check(record)
    return super().evaluated(name, records, places, evaluating)

  def unknown(self, record: Mapping[str, Any], field: str, fitted: Any) -> bool:
    """True if the category of a record is not in the vocabulary."""
    value = self.category(record, field)
    return value is not None and place_of(value, fitted["categorical"][field]) is None

  def coder(self, fitted: Any) -> Callable[[Mapping[str, Any], str], tuple[float, bool]]:
    """Return the function from (record, field) to (scaled number or code, True if missing).

    Raises: DataError: `fitted` was learned by a column with other fields.
    """
    there = (*fitted["numeric"], *fitted["categorical"]) if isinstance(fitted, Mapping) and "numeric" in fitted else ()
    if there != self.fields or fitted["scaling"] != self.scaling:
      raise DataError(
        f"the run's values of the table (columns.json) are for the fields {', '.join(there) or 'none'}, and the column "
        f"has {', '.join(self.fields)}, scaling {self.scaling}: restore the file, or train again"
      )
    return functools.partial(self._coded, fitted)

  def record(self, item: Any) -> Mapping[str, Any]:
    """A record of one mapping from the fields to their values. Fields that it leaves out are missing."""
    return dict.fromkeys(self.fields) | dict(item) | {"id": "the table's row"}

  def show(self, record: Mapping[str, Any]) -> str:
    return escape(", ".join(f"{field} {record.get(field)}" for field in self.fields))

  def number(self, record: Mapping[str, Any], field: str) -> float | None:
    """The number in a field; None if it is missing. Raises DataError if it is not a finite number."""
    return number_of(record, field, self.missing)

  def category(self, record: Mapping[str, Any], field: str) -> str | None:
    """The name of the category in a field; None if it is missing. Raises DataError if it is not a name."""
    value = record[field]
    if is_missing(value, self.missing):
      return None
    if isinstance(value, float | np.floating) and value.is_integer():  # whole numbers beside missing ones are floats
      value = int(value)
    if not isinstance(value, str | bool | np.bool_ | int | np.integer):
      raise DataError(
        f"{record['id']}: the field {field!r} is {value!r:.60}, not the name of a category. Correct it, or list the "
        "field in `numeric`."
      )
    return clean_name(str(value))

  def _scale(self, values: Float[np.ndarray, " n"]) -> dict[str, Any]:
    if self.scaling == "quantile":
      return {"quantiles": np.quantile(values, np.linspace(0, 1, QUANTILES)).tolist()}
    return mean_and_std(values)

  def _coded(self, fitted: Any, record: Mapping[str, Any], field: str) -> tuple[float, bool]:
    if field in fitted["categorical"]:
      name, names = self.category(record, field), fitted["categorical"][field]
      if name is None:
        return 0.0, True
      place = place_of(name, names)
      return float(UNKNOWN) if place is None else place + 1.0, False
    number, scale = self.number(record, field), fitted["numeric"][field]
    if number is None:
      return 0.0, True
    return (scaled(number, scale) if self.scaling == "standard" else normal_score(number, scale["quantiles"])), False


@dataclasses.dataclass(frozen=True)
class Number(Column):
  """A number that a model predicts, float32 []: standard deviations from the mean of the training data."""

  field: str = "target"
  """Field of the record with the number."""

  def arrays(self, name: str, making: Making) -> Shapes:
    return {name: ((), np.float32)}

  def fit(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Learn the mean and the standard deviation: {"mean": m, "std": s}. Raises DataError if all numbers are equal."""
    values = np.array([self.number(record) for record in without_images(records)], np.float64)
    if not len(values) or not np.ptp(values):
      what = f"all {len(values)} training records have the same number" if len(values) else "there is no record"
      raise DataError(
        f"{what} in the field {self.field!r}: nothing can be learned. Add records, or name another field."
      )
    return mean_and_std(values)

  def row(self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any) -> np.ndarray:
    return np.asarray(scaled(self.number(record), fitted), np.float32)

  def number(self, record: Mapping[str, Any]) -> float:
    """The number of a record. Raises DataError if there is none, or if it is not finite."""
    value = number_of(record, self.field, MISSING)
    if value is None:
      raise DataError(
        f"{record['id']}: the field {self.field!r}, which is predicted, is empty. Fill it, or remove the record."
      )
    return value

  def show(self, record: Mapping[str, Any]) -> str:
    return f"{self.number(record):g}"


@dataclasses.dataclass(frozen=True)
class Present(Column):
  """Modalities that a record has, bool [modalities].

  The field `missing` of a record names those that it lacks. Their arrays hold placeholders, which a model with the
  setting `partial` does not read.
  """

  modalities: tuple[str, ...] = ()
  """Names of the modalities, in the order of the model's towers."""

  def arrays(self, name: str, making: Making) -> Shapes:
    return {name: ((len(self.modalities),), np.bool_)}

  def row(self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any) -> np.ndarray:
    lacks = record.get("missing", ())
    found = np.array([name not in lacks for name in self.modalities])
    if not found.any():
      raise DataError(
        f"{record['id']}: it has none of {', '.join(self.modalities)}. Remove the record, or use "
        "--data.on-bad-record skip."
      )
    return found

  def record(self, item: Any) -> Mapping[str, Any]:
    """A record that has the modalities in `item`."""
    return {"missing": tuple(name for name in self.modalities if name not in item), "id": "the record"}


def is_missing(value: Any, missing: Sequence[str]) -> bool:
  """True for None, and for a value whose text is listed as missing."""
  return value is None or (isinstance(value, str | float | np.floating) and str(value).strip().casefold() in missing)


def number_of(record: Mapping[str, Any], field: str, missing: Sequence[str]) -> float | None:
  """The number in a field of a record; None if it is missing. Raises DataError if it is not a finite number."""
  value = record[field]
  if is_missing(value, missing):
    return None
  try:
    number = math.nan if isinstance(value, bool | np.bool_) else float(value)
  except (TypeError, ValueError, OverflowError):
    raise DataError(
      f"{record['id']}: the field {field!r} is {value!r:.60}, not a number. Correct it, list the field in "
      "`categorical`, or list the text in `missing`."
    ) from None
  if not abs(number) <= LARGEST:
    raise DataError(
      f"{record['id']}: the field {field!r} is {value!r:.60}, not a finite number (up to {LARGEST:g}). Leave the "
      "field empty if its value is missing, or list the text in `missing`."
    )
  return number


def without_images(records: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
  """All records, without their images where the source can do without reading them."""
  read = getattr(records, "without_image", records.__getitem__)
  return (read(index) for index in range(len(records)))


def mean_and_std(values: Float[np.ndarray, " n"]) -> dict[str, float]:
  """Mean and standard deviation of numbers. The deviation of equal numbers is written as 1."""
  return {"mean": float(values.mean()), "std": float(values.std()) if np.ptp(values) else 1.0}


def scaled(number: float, scale: Mapping[str, float]) -> float:
  """A number in standard deviations from the mean, within LARGEST (float32 ends at 3e38)."""
  return max(-LARGEST, min(LARGEST, (number - scale["mean"]) / scale["std"]))


def normal_score(number: float, quantiles: Sequence[float]) -> float:
  """Normal score of a number's place among quantiles. Equal quantiles count as their middle. Between -3.1 and 3.1."""
  from scipy.special import ndtri

  grid = np.linspace(0, 1, len(quantiles))
  low = np.interp(number, quantiles, grid)
  high = 1 - np.interp(-number, -np.asarray(quantiles)[::-1], grid)
  return float(ndtri(np.clip((low + high) / 2, 1e-3, 1 - 1e-3)))
