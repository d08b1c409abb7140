"""Rows of a batch that are made when they are asked for, so that each process makes its own and no other's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int


class LazyRows:
  """Stands for an array of rows; `rows[index]` makes those that an index picks, and keeps none.

  Args:
    places: what each row is made of; rows of one place are made once.
    shape: of a row.
    make: the rows of some places, one after the other.
  """

  def __init__(
    self, places: Int[np.ndarray, " n"], shape: Sequence[int], make: Callable[[list[int]], Sequence[np.ndarray]]
  ):
    self._places, self._make = places, make
    self.shape = (len(places), *shape)

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, index: Any) -> np.ndarray:
    first, *rest = index if isinstance(index, tuple) else (index,)
    wanted = np.asarray(self._places[first])
    if not wanted.size:
      return np.zeros((*wanted.shape, *self.shape[1:]), np.float32)[(slice(None), *rest)]
    places, back = np.unique(wanted, return_inverse=True)
    rows = np.stack(self._make(places.tolist()))[back.reshape(wanted.shape)]
    return rows[(slice(None),) * wanted.ndim + tuple(rest)]

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
    del copy  # it is new in any case
    return np.asarray(self[:], dtype)
