"""Recommendation by neighbours of items (Sarwar et al. 2001; Deshpande and Karypis 2004)."""

from typing import Any

import numpy as np

_CELLS = 16_000_000  # similarities held at a time


def item_neighbours(trained: Any, number: int) -> Any:
  """Cosines of items as vectors over users, the largest ones of each item.

  Args:
    trained: sparse matrix [users, items] with 1 for training interactions.
    number: number of neighbours of an item.
  Returns: sparse matrix [items, items]: row i has the cosines of the neighbours of item i, which are not i itself.
  """
  from scipy.sparse import csr_array, vstack

  columns = trained.T.tocsr()
  length = np.sqrt(np.asarray(columns.sum(axis=1)).ravel())
  unit = columns.multiply(1 / np.maximum(length, 1.0)[:, None]).tocsr()
  items, parts = unit.shape[0], []
  rows = max(1, _CELLS // items)
  for start in range(0, items, rows):
    cosines = (unit[start : start + rows] @ unit.T).toarray()
    cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = 0.0
    if number < items:
      least = np.partition(cosines, items - number, axis=1)[:, items - number, None]
      cosines[cosines < least] = 0.0
    parts.append(csr_array(cosines))
  return vstack(parts).tocsr()


def neighbour_scores(seen: Any, neighbours: Any) -> np.ndarray:
  """Sum of the cosines between each item and the items of a user that have it as a neighbour, or it them.

  Args:
    seen: sparse matrix [users, items] with 1 for the items of each user.
    neighbours: result of `item_neighbours`.
  """
  return (seen @ neighbours.T).toarray()
