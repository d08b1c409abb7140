"""Column of class labels."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.columns.base import Column, Making, Shapes
from mmjax.data.records import concept_number


@dataclasses.dataclass(frozen=True)
class Label(Column):
  """Hash of the text in a field of a record, int32 []. Equal texts have equal numbers."""

  field: str = "group"
  """Field of the record. All records without it have the same number."""

  @property
  def optional(self) -> bool:
    return True

  def arrays(self, name: str, making: Making) -> Shapes:
    return {name: ((), np.int32)}

  def row(self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any) -> np.ndarray:
    return np.asarray(concept_number(record.get(self.field, "")), np.int32)
