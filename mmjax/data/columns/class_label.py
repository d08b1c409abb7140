"""Column of class numbers, for classification."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mmjax.data.captions import text_fault
from mmjax.data.columns.base import Column, Making, Shapes
from mmjax.data.columns.names import clean_name, place_of, two_of_one_meaning
from mmjax.data.columns.table import MISSING, WORDS, is_missing
from mmjax.data.errors import DataError
from mmjax.errors import did_you_mean


@dataclasses.dataclass(frozen=True)
class ClassLabel(Column):
  """Class of a record, int32 []: the place of its name among the sorted names of the training data.

  `name` tells the name of the class of a record.
  """

  field: str = "label"
  """Field of the record with the name of the class: a text or a whole number."""
  unseen: Literal["refuse", "accept"] = "refuse"
  """Class that no training record has. accept: it is -1 (verification of identities that were never seen)."""
  missing: tuple[str, ...] = (*MISSING, *WORDS)
  """Texts that stand for a missing value, in lower case, and are no classes. Shorten it if one is a class."""

  def arrays(self, name: str, making: Making) -> Shapes:
    return {name: ((), np.int32)}

  def fit(self, records: Sequence[Mapping[str, Any]]) -> dict[str, list]:
    """Collect the classes and how many records each has. Images are not read if the records can do without.

    Returns: {"classes": sorted names, "counts": records of each}.
    Raises: DataError: there is one class only, or a record has no class.
    """
    read = getattr(records, "without_image", records.__getitem__)
    counts = Counter(self.name(read(index)) for index in range(len(records)))
    if len(counts) < 2:
      raise DataError(
        f"all {len(records)} training records have the class {next(iter(counts))!r} in the field {self.field!r}: "
        "nothing can be learned. Add records of other classes, or name another field."
      )
    if two := two_of_one_meaning(counts):
      raise DataError(
        f"the field {self.field!r} has the classes {two[0]!r} and {two[1]!r}, which are one value: write "
        "one of them in all records."
      )
    names = sorted(counts)
    return {"classes": names, "counts": [counts[name] for name in names]}

  def row(self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any) -> np.ndarray:
    name, names = self.name(record), fitted["classes"]
    place = place_of(name, names)
    if place is None:
      if self.unseen == "accept":
        return np.asarray(-1, np.int32)
      raise DataError(
        f"{record['id']}: the class {name!r} is not one of the {len(names)} of the training data "
        f"({', '.join(names[:5])}{', ...' if len(names) > 5 else ''}).{did_you_mean(name, names)} Correct its name, "
        "or add training records of this class."
      )
    return np.asarray(place, np.int32)

  def show(self, record: Mapping[str, Any]) -> str:
    return self.name(record)

  def name(self, record: Mapping[str, Any]) -> str:
    """Name of the class of a record. Raises DataError if it has none."""
    value = record[self.field]
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer) or text_fault(str(value)):
      raise DataError(f"{record['id']}: the field {self.field!r} is {value!r}, not the name or number of a class.")
    if is_missing(value, self.missing):
      raise DataError(
        f"{record['id']}: the field {self.field!r} is {value!r}, which stands for a missing value. Give the record a "
        "class or remove it; if it is one, shorten the setting `missing` of the column."
      )
    return clean_name(str(value))
