"""The engine's passes over all pairs, with their derivatives written by hand.

Reverse-mode differentiation of a ring would keep every travelling copy alive; instead the backward pass
recomputes each tile once and sends a block round again together with its statistics, their cotangents and a
gradient accumulator.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from mmjax.objectives.pairwise import tiles
from mmjax.objectives.pairwise.reductions import KINDS
from mmjax.objectives.pairwise.tiles import Back, Block, Rules, Tile
from mmjax.parallel.ring import tour, vary

PyTree = Any
Stats = dict[str, Array]


class Layout(NamedTuple):
  """Placement of the pairs on the mesh and order of the tiles.

  Attributes:
    axes: the mesh axes of the batch; None for one block.
    tile: most rows and columns at once.
    method: see pairwise_loss.
    varying: every mesh axis over which the inputs may vary.
    dtype: of the statistics and of gradient accumulators.
  """

  axes: tuple[str, ...] | None
  tile: Tile
  method: str
  varying: tuple[str, ...]
  dtype: Any


def statistics(rules: Rules, layout: Layout, rows: Block, columns: Block) -> tuple[Stats, Stats]:
  """Statistics of the local rows and of the local columns over the global batch. They are exactly differentiable.

  Args:
    rules: rules of the loss.
    layout: placement of the pairs.
    rows: rows of this device.
    columns: columns of this device.
  Returns: (statistics of the rows, statistics of the columns).
  """

  def value(rows: Block, columns: Block) -> tuple[Stats, Stats]:
    row_states, column_states = _states(rules, layout, rows, columns)
    return _values(rules.rows, row_states), _values(rules.columns, column_states)

  def forward(rows: Block, columns: Block) -> tuple[tuple[Stats, Stats], tuple]:
    row_states, column_states = _states(rules, layout, rows, columns)
    saved = (rows, columns, _residuals(rules.rows, row_states), _residuals(rules.columns, column_states))
    return (_values(rules.rows, row_states), _values(rules.columns, column_states)), saved

  def backward(saved: tuple, cotangents: tuple[Stats, Stats]) -> tuple[Block, Block]:
    rows, columns, row_residual, column_residual = saved
    row_cotangent, column_cotangent = vary(cotangents, layout.varying)
    back = Back(rows, row_residual, row_cotangent), Back(columns, column_residual, column_cotangent)
    (_, row_gradient), (_, column_gradient) = _gradients(rules, layout, *back, states=False)
    return _like(row_gradient, rows), _like(column_gradient, columns)

  if layout.method == "autodiff":
    return value(rows, columns)
  core = jax.custom_vjp(value)
  core.defvjp(forward, backward)
  return core(rows, columns)


def affine_total(
  rules: Rules, layout: Layout, rows: Block, columns: Block, row_slopes: Stats, column_slopes: Stats
) -> Array:
  """Sum over this device's statistics of slope * statistic, its gradient formed in the same pass as its
  value.

  Only right where the result meets the same cotangent on every device, that is directly under a psum: a
  column's gradient has parts from all devices.

  Args:
    rules: rules of the loss.
    layout: placement of the pairs.
    rows: rows of this device.
    columns: columns of this device.
    row_slopes: factors of the rows' statistics.
    column_slopes: factors of the columns' statistics.
  """

  def dot(stats: tuple[Stats, Stats], slopes: tuple[Stats, ...]) -> Array:
    total = jnp.zeros((), layout.dtype)
    for part in jax.tree.leaves(jax.tree.map(jnp.multiply, slopes, stats)):
      total = total + part.sum()
    return total

  def value(rows: Block, columns: Block, *slopes: Stats) -> Array:
    return dot(_states(rules, layout, rows, columns), slopes)

  def forward(rows: Block, columns: Block, *slopes: Stats) -> tuple[Array, tuple]:
    nothing = [dict.fromkeys(kinds, ()) for kinds in (rules.rows, rules.columns)]
    back = Back(rows, nothing[0], slopes[0]), Back(columns, nothing[1], slopes[1])
    (row_states, row_gradient), (column_states, column_gradient) = _gradients(rules, layout, *back, states=True)
    stats = (row_states, column_states)
    return dot(stats, slopes), (_like(row_gradient, rows), _like(column_gradient, columns), *stats)

  def backward(saved: tuple, cotangent: Array) -> tuple:
    return jax.tree.map(lambda leaf: leaf * cotangent.astype(leaf.dtype), saved)

  core = jax.custom_vjp(value)
  core.defvjp(forward, backward)
  return core(rows, columns, row_slopes, column_slopes)


def _states(rules: Rules, layout: Layout, rows: Block, columns: Block) -> tuple[PyTree, PyTree]:
  remat = layout.method == "autodiff"
  fresh = lambda kinds, size: vary(tiles.start(kinds, size, layout.dtype), layout.varying)

  def visit(row_states: PyTree, guest: Block) -> tuple[PyTree, PyTree]:
    start = fresh(rules.columns, guest.size)
    return tiles.visit_states(rules, rows, row_states, guest, start, layout.tile, remat)

  return tour(
    visit,
    fresh(rules.rows, rows.size),
    columns,
    start=fresh(rules.columns, columns.size),
    merge=partial(tiles.merge, rules.columns),
    axis_name=layout.axes,
    method="ring" if remat else layout.method,
  )


def _gradients(rules: Rules, layout: Layout, rows: Back, columns: Back, *, states: bool) -> tuple[PyTree, PyTree]:
  """((statistics if asked for, gradients) of the rows, the same of the columns)."""

  def fresh(kinds: dict[str, str], block: Block) -> tuple[PyTree, PyTree]:
    diff, _ = tiles.partition(block)
    gradient = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, layout.dtype), diff)
    begin = tiles.start(kinds, block.size, layout.dtype) if states else {}
    return vary((begin, gradient), layout.varying)

  def visit(row_sums: PyTree, guest: Back) -> tuple[PyTree, PyTree]:
    return tiles.visit_gradients(rules, rows, row_sums, guest, fresh(rules.columns, guest.block), layout.tile)

  return tour(
    visit,
    fresh(rules.rows, rows.block),
    columns,
    start=fresh(rules.columns, columns.block),
    merge=lambda one, two: jax.tree.map(jnp.add, one, two),
    axis_name=layout.axes,
    method=layout.method,
  )


def _values(kinds: dict[str, str], states: PyTree) -> Stats:
  return {name: KINDS[kind].value(states[name]) for name, kind in kinds.items()}


def _residuals(kinds: dict[str, str], states: PyTree) -> dict[str, PyTree]:
  return {name: KINDS[kind].residual(states[name]) for name, kind in kinds.items()}


def _like(gradient: PyTree, block: Block) -> PyTree:
  """Gradients in the dtypes of what they belong to; None where there is none."""
  return jax.tree.map(
    lambda leaf, g: None if g is None else g.astype(leaf.dtype),
    block,
    gradient,
    is_leaf=lambda leaf: leaf is None,
  )
