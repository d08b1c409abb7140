"""Mesh axes that a collective crosses."""

from collections.abc import Mapping

import numpy as np

from mmjax.plan.facts import Traffic
from mmjax.plan.hlo import Collective


def crossed_axes(groups: tuple[tuple[int, ...], ...], mesh: Mapping[str, int]) -> tuple[str, ...]:
  """Names of the axes along which the devices of a group differ. Device numbers count the mesh in row-major order."""
  sizes = tuple(mesh.values())
  crossed: set[int] = set()
  for group in groups:
    places = np.stack(np.unravel_index(np.asarray(group), sizes))
    crossed |= {axis for axis in range(len(sizes)) if len(set(places[axis].tolist())) > 1}
  return tuple(name for axis, name in enumerate(mesh) if axis in crossed)


def by_axes(collectives: tuple[Collective, ...], mesh: Mapping[str, int]) -> tuple[Traffic, ...]:
  """Sum the collectives that have the same kind, axes, group size and span. Sorted by bytes, largest first."""
  merged: dict[tuple[str, tuple[str, ...], int, int], tuple[int, int]] = {}
  for c in collectives:
    span = max((max(group) - min(group) for group in c.groups), default=0)
    key = c.kind, crossed_axes(c.groups, mesh), c.group_size, span
    count, size = merged.get(key, (0, 0))
    merged[key] = count + c.count, size + c.bytes
  rows = [Traffic(kind, axes, size, span, *total) for (kind, axes, size, span), total in merged.items()]
  return tuple(sorted(rows, key=lambda row: -row.bytes))
