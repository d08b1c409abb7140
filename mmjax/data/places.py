"""Places of records that stand for all."""

import numpy as np


def spread(size: int, limit: int) -> list[int]:
  """At most `limit` places, evenly spread over `size`."""
  return np.unique(np.linspace(0, size - 1, min(limit, size)).round().astype(int)).tolist() if size else []
