"""A function of a device's own rows, run on every device of the mesh."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from mmjax.objectives.terms.base import Whole


def over_shards(
  local: Callable[..., Any], whole: Whole, rows: Sequence[Any], shared: Sequence[Any], *, by_row: bool = False
) -> Any:
  """Runs `local(*rows, *shared)` under shard_map.

  Args:
    local: sees the rows of one device. It reduces over `whole.axes` itself, so that its (first) result is the same
      on every device.
    whole: the mesh, and the axes that the batch is split over.
    rows: pytrees of arrays [global batch, ...], split over the batch axes.
    shared: pytrees of arrays that every device has whole.
    by_row: `local` returns (scalar, pytree of arrays [rows, ...]); otherwise the scalar alone.
  """
  split, same = PartitionSpec(whole.axes), PartitionSpec()
  specs = (*[split] * len(rows), *[same] * len(shared))
  results = (same, split) if by_row else same
  return jax.shard_map(local, mesh=whole.mesh, in_specs=specs, out_specs=results)(*rows, *shared)
