"""Tours: every block of one side meets every block of the other side once, on whatever devices they are stored."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

PyTree = Any
AxisName = str | tuple[str, ...] | None
# (resident, guest) -> (resident, part): the resident updated by the guest, and the guest's result from this
# resident.
Visit = Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
Merge = Callable[[PyTree, PyTree], PyTree]

METHODS = ("ring", "bidirectional", "nested", "all_gather")


def tour(
  visit: Visit,
  resident: PyTree,
  guest: PyTree,
  *,
  start: PyTree,
  merge: Merge,
  axis_name: AxisName,
  method: str,
) -> tuple[PyTree, PyTree]:
  """Brings every device's guest to every device's resident. The results for a guest return to the device it came from.

  Args:
    visit: computes one meeting. It returns the updated resident and the guest's part. The part is separate from the
      guest, so that parts from other devices can be in transit while it runs.
    resident: data that stays on this device.
    guest: data of this device that travels. Its leaves have one leading axis (the guest's rows), like those of `start`
      and of the parts.
    start: the neutral element of `merge`.
    merge: combines two parts.
    axis_name: mesh axes of shard_map or pmap; None: a single meeting without communication.
    method: "ring" (to one neighbour), "bidirectional" (half of the guest in each direction), "nested" (a ring over the
      trailing axes inside a ring over the first axis, so that slow links are crossed once per inner round), or
      "all_gather" (all guests at once: more memory, fewer messages).
  Returns: (resident, all parts of this device's guest, merged).
  """
  if axis_name is None:
    return visit(resident, guest)
  if method == "all_gather":
    return _all_gather(visit, resident, guest, merge=merge, axis_name=axis_name)
  if method == "nested":
    inner = axis_name[1:]
    rounds = lambda resident, guest: ring(visit, resident, [guest], [1], [start], merge=merge, axis_name=inner)
    resident, (part,) = ring(_single(rounds), resident, [guest], [1], [start], merge=merge, axis_name=axis_name[0])
    return resident, part
  if method == "bidirectional":
    return _bidirectional(visit, resident, guest, start=start, merge=merge, axis_name=axis_name)
  resident, (part,) = ring(visit, resident, [guest], [1], [start], merge=merge, axis_name=axis_name)
  return resident, part


def ring(
  visit: Visit,
  resident: PyTree,
  guests: list[PyTree],
  steps: list[int],
  starts: list[PyTree],
  *,
  merge: Merge,
  axis_name: AxisName,
) -> tuple[PyTree, list[PyTree]]:
  """Runs several guests around a ring at once; guest k moves steps[k] devices per hop.

  After as many hops as the axis has devices, each guest is back. Both messages of a hop are issued before its
  computation and do not depend on it, so that they can overlap.

  Args:
    visit: see `tour`.
    resident: see `tour`.
    guests: the guests of this device.
    steps: for each guest, the devices that it moves per hop (1 or -1).
    starts: for each guest, the neutral element of `merge`.
    merge: see `tour`.
    axis_name: mesh axes of the ring.
  Returns: the resident, and for each guest its parts, merged.
  """
  size = jax.lax.axis_size(axis_name)

  def hop(carry: tuple, _: None) -> tuple[tuple, None]:
    resident, guests, parts = carry
    coming = [_shift(guest, step, axis_name) for guest, step in zip(guests, steps)]
    parts = [_shift(part, step, axis_name) for part, step in zip(parts, steps)]
    for k, guest in enumerate(guests):
      resident, part = visit(resident, guest)
      parts[k] = merge(parts[k], part)
    return (resident, coming, parts), None

  if size == 1:
    parts = []
    for guest in guests:
      resident, part = visit(resident, guest)
      parts.append(part)
    return resident, parts
  (resident, _, parts), _ = jax.lax.scan(hop, (resident, guests, starts), None, length=size)
  return resident, [_shift(part, step, axis_name) for part, step in zip(parts, steps)]


def take_rows(tree: PyTree, rows: Int[Array, "wanted"], axis_name: AxisName) -> PyTree:
  """Rows of the global batch, from the devices that hold them. Their gradient returns to these devices.

  The blocks of all devices pass by on a ring, so a device holds at most two of them. Blocks are not kept for the
  gradient.

  Args:
    tree: arrays [local rows, ...], a block of the global batch on every device.
    rows: numbers of the wanted rows in the global batch.
    axis_name: mesh axes of the batch, inside shard_map. None: the arrays are the whole batch.
  """
  if axis_name is None:
    return jax.tree.map(lambda leaf: leaf[rows], tree)
  size = jax.tree.leaves(tree)[0].shape[0]
  first = vary(jnp.full((size,), jax.lax.axis_index(axis_name) * size, jnp.int32), _axes(axis_name))

  def visit(found: PyTree, guest: tuple[PyTree, Array]) -> tuple[PyTree, dict]:
    block, start = guest
    place = rows - start[0]
    here = (place >= 0) & (place < size)
    take = lambda leaf, old: jnp.where(
      here.reshape(-1, *[1] * (leaf.ndim - 1)), leaf[jnp.clip(place, 0, size - 1)], old
    )
    return jax.tree.map(take, block, found), {}

  nothing = jax.tree.map(lambda leaf: jnp.zeros((len(rows), *leaf.shape[1:]), leaf.dtype), tree)
  nothing = vary(nothing, varying_axes(tree) or _axes(axis_name))
  merge: Merge = lambda one, _: one
  return ring(visit, nothing, [(tree, first)], [1], [{}], merge=merge, axis_name=axis_name)[0]


def _axes(axis_name: AxisName) -> tuple[str, ...]:
  return (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())


def vary(tree: PyTree, axes: tuple[str, ...]) -> PyTree:
  """Marks every leaf as varying over the mesh axes, if shard_map tracks this; otherwise does nothing.

  Inside differentiated code, this determines where the gradients of replicated inputs are summed over devices.
  """

  def cast(leaf: Array) -> Array:
    missing = tuple(axis for axis in axes if axis not in jax.typeof(leaf).manual_axis_type.varying)
    return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

  return jax.tree.map(cast, tree)


def varying_axes(tree: PyTree) -> tuple[str, ...]:
  """Mesh axes over which any leaf is known to vary."""
  return tuple(sorted({axis for leaf in jax.tree.leaves(tree) for axis in jax.typeof(leaf).manual_axis_type.varying}))


def _single(visit: Callable[[PyTree, PyTree], tuple[PyTree, list[PyTree]]]) -> Visit:
  def one(resident: PyTree, guest: PyTree) -> tuple[PyTree, PyTree]:
    resident, (part,) = visit(resident, guest)
    return resident, part

  return one


def _shift(tree: PyTree, step: int, axis_name: AxisName) -> PyTree:
  size = jax.lax.axis_size(axis_name)
  pairs = [(k, (k + step) % size) for k in range(size)]
  return jax.tree.map(lambda leaf: jax.lax.ppermute(leaf, axis_name, pairs), tree)


def _bidirectional(
  visit: Visit, resident: PyTree, guest: PyTree, *, start: PyTree, merge: Merge, axis_name: AxisName
) -> tuple[PyTree, PyTree]:
  half = jax.tree.leaves(guest)[0].shape[0] // 2
  if half == 0:
    resident, (part,) = ring(visit, resident, [guest], [1], [start], merge=merge, axis_name=axis_name)
    return resident, part
  cut = lambda tree: [
    jax.tree.map(lambda leaf: leaf[:half], tree),
    jax.tree.map(lambda leaf: leaf[half:], tree),
  ]
  resident, parts = ring(visit, resident, cut(guest), [1, -1], cut(start), merge=merge, axis_name=axis_name)
  return resident, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), *parts)


def _all_gather(
  visit: Visit, resident: PyTree, guest: PyTree, *, merge: Merge, axis_name: AxisName
) -> tuple[PyTree, PyTree]:
  size = jax.lax.axis_size(axis_name)
  resident, parts = visit(resident, jax.lax.all_gather(guest, axis_name, tiled=True))
  # Send every guest's parts back. Afterwards, row k of the leading axis is device k's part of this device's guest.
  split = jax.tree.map(lambda leaf: leaf.reshape(size, leaf.shape[0] // size, *leaf.shape[1:]), parts)
  home = jax.tree.map(lambda leaf: jax.lax.all_to_all(leaf, axis_name, 0, 0), split)
  part = jax.tree.map(lambda leaf: leaf[0], home)
  for k in range(1, size):
    part = merge(part, jax.tree.map(lambda leaf: leaf[k], home))  # noqa: B023
  return resident, part
