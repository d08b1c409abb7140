"""Rows of a batch that are made on demand, so that each process makes only its own rows."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int


class LazyRows:
  """Stand-in for an array of rows. `rows[index]` makes the rows of the index, and does not store them.

  Args:
    places: a number for each row. Rows with the same number are equal, and are made once per access.
    shape: shape of a row.
    make: makes the rows of a list of numbers.

  Attributes:
    shape: shape of the whole array.
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
    del copy  # the array is always new
    return np.asarray(self[:], dtype)
