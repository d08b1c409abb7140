"""Execution of a function on the local rows of every device of a mesh."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from mmjax.objectives.terms.base import Whole


def over_shards(
  local: Callable[..., Any], whole: Whole, rows: Sequence[Any], shared: Sequence[Any], *, by_row: bool = False
) -> Any:
  """Run `local(*rows, *shared)` under shard_map.

  Args:
    local: function of the rows of one device. It must reduce over `whole.axes`, so that its scalar result is the same
      on every device.
    whole: inputs of the term, with the mesh and the axes of the batch.
    rows: pytrees of arrays [global batch, ...], which are split over the axes of the batch.
    shared: pytrees of arrays that are replicated.
    by_row: True if `local` returns (scalar, pytree of arrays [rows, ...]). False: only the scalar.
  Returns: the result of `local`, with rows of the global batch.
  """
  split, same = PartitionSpec(whole.axes), PartitionSpec()
  specs = (*[split] * len(rows), *[same] * len(shared))
  results = (same, split) if by_row else same
  return jax.shard_map(local, mesh=whole.mesh, in_specs=specs, out_specs=results)(*rows, *shared)
