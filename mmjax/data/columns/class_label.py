"""Column of class numbers, for classification."""

import bisect
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from mmjax.data.columns.base import Column, Making, Shapes
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
    names = sorted(counts)
    return {"classes": names, "counts": [counts[name] for name in names]}

  def row(self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any) -> np.ndarray:
    name, names = self.name(record), fitted["classes"]
    place = bisect.bisect_left(names, name)
    if place == len(names) or names[place] != name:
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
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer) or value == "":
      raise DataError(f"{record['id']}: the field {self.field!r} is {value!r}, not the name or number of a class.")
    return str(value)
