"""One meeting of a block of rows with a block of columns, tile by tile: statistics forward, gradients backward."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

from mmjax.objectives.pairwise.reductions import KINDS
from mmjax.objectives.pairwise.similarity import accumulator

PyTree = Any
Tile = tuple[int, int]


class Block(NamedTuple):
  """Some rows (or columns) of the pair matrix.

  Attributes:
    features: features that the objective's tile reads; leaves with one leading axis. "index" is the global number.
    ok: False where an example is absent (padding, weight 0); None if all are present.
  """

  features: Mapping[str, PyTree]
  ok: Bool[Array, "size"] | None

  @property
  def size(self) -> int:
    """Number of rows (or columns)."""
    return self.features["index"].shape[0]


class Rules(NamedTuple):
  """Tile function of a pair matrix, and the reductions of each side.

  Attributes:
    tile: see `Pairwise`.
    rows: {name of the tile's output: kind of reduction} over the columns.
    columns: {name of the tile's output: kind of reduction} over the rows.
  """

  tile: Callable[[Mapping[str, PyTree], Mapping[str, PyTree]], Mapping[str, PyTree]]
  rows: dict[str, str]
  columns: dict[str, str]


def start(kinds: dict[str, str], size: int, dtype: Any) -> dict[str, PyTree]:
  """States over no pairs, by name."""
  return {name: KINDS[kind].start(size, dtype) for name, kind in kinds.items()}


def merge(kinds: dict[str, str], one: PyTree, two: PyTree) -> dict[str, PyTree]:
  """Merges two dictionaries of states."""
  return {name: KINDS[kind].merge(one[name], two[name]) for name, kind in kinds.items()}


def tile_outputs(rules: Rules, row: Block, column: Block) -> dict[str, PyTree]:
  """Matrices of the objective for one tile. Absent pairs are filled with values that do not change the reductions."""
  outputs = rules.tile(row.features, column.features)
  outputs = jax.tree.map(lambda a: a.astype(accumulator(a.dtype)), dict(outputs))
  keep = _present_pairs(row, column)
  if keep is None:
    return outputs
  result: dict[str, PyTree] = {}
  for name, a in outputs.items():
    fill = KINDS[rules.rows.get(name) or rules.columns[name]].fill
    if isinstance(a, tuple):  # softmean: (logits, values)
      result[name] = (jnp.where(keep, a[0], fill), jnp.where(keep, a[1], 0))
    else:
      result[name] = jnp.where(keep, a, fill)
  return result


def tile_states(rules: Rules, outputs: PyTree, row: Block, column: Block) -> tuple[PyTree, PyTree]:
  """States of one tile: (of the rows, of the columns).

  Args:
    rules: tile function and reductions.
    outputs: result of `tile_outputs`.
    row: rows of the tile.
    column: columns of the tile.
  """
  return (
    {name: KINDS[kind].tile(outputs[name], 1, column.features["index"]) for name, kind in rules.rows.items()},
    {name: KINDS[kind].tile(outputs[name], 0, row.features["index"]) for name, kind in rules.columns.items()},
  )


def tile_cotangents(rules: Rules, outputs: PyTree, row: "Back", column: "Back") -> dict[str, PyTree]:
  """Cotangents of all matrices of a tile, from the cotangents of the statistics.

  Args:
    rules: tile function and reductions.
    outputs: result of `tile_outputs`.
    row: rows of the tile, with their residuals and cotangents.
    column: columns of the tile, with their residuals and cotangents.
  """
  total: dict[str, PyTree] = {}
  sides = ((rules.rows, row, column, 1), (rules.columns, column, row, 0))
  for kinds, this, other, axis in sides:
    for name, kind in kinds.items():
      index = other.block.features["index"]
      flow = KINDS[kind].pull(this.cotangent[name], this.residual[name], outputs[name], axis, index)
      total[name] = jax.tree.map(jnp.add, total[name], flow) if name in total else flow
  return total


class Back(NamedTuple):
  """Block in the backward pass, with the residuals of its statistics and their cotangents."""

  block: Block
  residual: dict[str, PyTree]
  cotangent: dict[str, Array]


def visit_states(
  rules: Rules,
  rows: Block,
  row_states: PyTree,
  columns: Block,
  column_states: PyTree,
  tile: Tile,
  remat: bool,
) -> tuple[PyTree, PyTree]:
  """Merges the statistics of rows x columns into the states.

  Args:
    rules: tile function and reductions.
    rows: the rows.
    row_states: states of the rows so far.
    columns: the columns.
    column_states: states of the columns so far.
    tile: largest number of rows and columns at once.
    remat: if True, autodiff recomputes each tile.
  Returns: the new states of rows and of columns.
  """
  tile = (fit(rows.size, tile[0]), fit(columns.size, tile[1]))
  rows, columns = _ready(rows, tile[0]), _ready(columns, tile[1])

  def body(row: Block, column: Block, row_state: PyTree, column_state: PyTree) -> tuple[PyTree, PyTree]:
    outputs = tile_outputs(rules, row, column)
    new_row, new_column = tile_states(rules, outputs, row, column)
    return merge(rules.rows, row_state, new_row), merge(rules.columns, column_state, new_column)

  return sweep(body, rows, columns, row_states, column_states, tile, remat=remat)


def visit_gradients(
  rules: Rules, rows: Back, row_sums: PyTree, columns: Back, column_sums: PyTree, tile: Tile
) -> tuple[PyTree, PyTree]:
  """Adds the gradients of rows x columns to the sums, each of which is a pair (states, gradients).

  The states are computed in the same pass. An affine objective needs them; for other objectives they are empty.

  Args:
    rules: tile function and reductions.
    rows: the rows, with residuals and cotangents.
    row_sums: sums of the rows so far.
    columns: the columns, with residuals and cotangents.
    column_sums: sums of the columns so far.
    tile: largest number of rows and columns at once.
  Returns: the new sums of rows and of columns.
  """
  tile = (fit(rows.block.size, tile[0]), fit(columns.block.size, tile[1]))
  rows = rows._replace(block=_ready(rows.block, tile[0]))
  columns = columns._replace(block=_ready(columns.block, tile[1]))

  def body(row: Back, column: Back, row_sum: PyTree, column_sum: PyTree) -> tuple[PyTree, PyTree]:
    row_diff, row_rest = partition(row.block)
    column_diff, column_rest = partition(column.block)

    def matrices(row_diff: PyTree, column_diff: PyTree) -> PyTree:
      return tile_outputs(rules, combine(row_diff, row_rest), combine(column_diff, column_rest))

    outputs, pull = jax.vjp(matrices, row_diff, column_diff)
    row_gradient, column_gradient = pull(tile_cotangents(rules, outputs, row, column))
    row_states, column_states = tile_states(rules, outputs, row.block, column.block)
    return (
      _add(row_sum, ({name: row_states[name] for name in row_sum[0]}, row_gradient)),
      _add(column_sum, ({name: column_states[name] for name in column_sum[0]}, column_gradient)),
    )

  return sweep(body, rows, columns, row_sums, column_sums, tile)


def sweep(
  body: Callable[[PyTree, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]],
  rows: PyTree,
  columns: PyTree,
  row_sums: PyTree,
  column_sums: PyTree,
  tile: Tile,
  *,
  remat: bool = False,
) -> tuple[PyTree, PyTree]:
  """Runs `body` over all tiles, one after another. Sums are updated in place, and padding is removed at the end.

  Args:
    body: (row, column, row sum, column sum) -> (row sum, column sum) of one tile.
    rows: pytree of the rows.
    columns: pytree of the columns.
    row_sums: sums of the rows so far.
    column_sums: sums of the columns so far.
    tile: rows and columns of a tile.
    remat: if True, autodiff recomputes each tile.
  Returns: the new sums of rows and of columns.
  """
  size = [jax.tree.leaves(side)[0].shape[0] for side in (rows, columns)]
  rows, row_sums = pad((rows, row_sums), tile[0])
  columns, column_sums = pad((columns, column_sums), tile[1])
  counts = [-(-n // t) for n, t in zip(size, tile)]

  def along_rows(i: Any, sums: tuple) -> tuple:
    row = take(rows, i, tile[0])

    def along_columns(j: Any, sums: tuple) -> tuple:
      row_sum, column_sums = sums
      row_sum, new = body(row, take(columns, j, tile[1]), row_sum, take(column_sums, j, tile[1]))
      return row_sum, put(column_sums, new, j, tile[1])

    step = jax.checkpoint(along_columns, prevent_cse=False) if remat else along_columns
    row_sum, column_sums = loop(counts[1], step, (take(sums[0], i, tile[0]), sums[1]))
    return put(sums[0], row_sum, i, tile[0]), column_sums

  row_sums, column_sums = loop(counts[0], along_rows, (row_sums, column_sums))
  return take(row_sums, 0, size[0]), take(column_sums, 0, size[1])


def partition(tree: PyTree) -> tuple[PyTree, PyTree]:
  """Splits a tree into (leaves with a gradient, other leaves). Each part has None in place of the other's leaves."""
  inexact = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.inexact)
  return (
    jax.tree.map(lambda leaf: leaf if inexact(leaf) else None, tree),
    jax.tree.map(lambda leaf: None if inexact(leaf) else leaf, tree),
  )


def combine(one: PyTree, two: PyTree) -> PyTree:
  """Inverse of `partition`."""
  return jax.tree.map(lambda a, b: b if a is None else a, one, two, is_leaf=lambda leaf: leaf is None)


def loop(count: int, body: Callable[[Any, PyTree], PyTree], carry: PyTree) -> PyTree:
  """Loop over `count` iterations, which is a plain call for a single one."""
  return body(0, carry) if count == 1 else jax.lax.fori_loop(0, count, body, carry)


def take(tree: PyTree, k: Any, size: int) -> PyTree:
  """Rows k * size to (k + 1) * size of every leaf."""
  whole = lambda leaf: isinstance(k, int) and k == 0 and leaf.shape[0] == size
  cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, k * size, size)
  return jax.tree.map(lambda leaf: leaf if whole(leaf) else cut(leaf), tree)


def put(tree: PyTree, rows: PyTree, k: Any, size: int) -> PyTree:
  """Writes `rows` to the rows k * size to (k + 1) * size of every leaf.

  Args:
    tree: tree to write to.
    rows: new rows.
    k: number of the slice.
    size: rows of a slice.
  """
  write = lambda leaf, new: jax.lax.dynamic_update_slice_in_dim(leaf, new, k * size, 0)
  return jax.tree.map(lambda leaf, new: new if leaf.shape == new.shape else write(leaf, new), tree, rows)


def fit(size: int, limit: int) -> int:
  """Tile size of at most `limit`, with the fewest tiles and, for this number, the least padding."""
  return -(-size // -(-size // limit))


def pad(tree: PyTree, multiple: int) -> PyTree:
  """Pads every leaf to a multiple: by repeating the last example (zeros might give NaN in a tile), masks by False."""

  def one(leaf: Array) -> Array:
    extra = -leaf.shape[0] % multiple
    width = ((0, extra),) + ((0, 0),) * (leaf.ndim - 1)
    return jnp.pad(leaf, width, mode="constant" if leaf.dtype == bool else "edge") if extra else leaf

  return jax.tree.map(one, tree)


def _ready(block: Block, tile: int) -> Block:
  """Adds an `ok` mask if the block will be padded."""
  return block._replace(ok=jnp.ones(block.size, bool)) if block.ok is None and block.size % tile else block


def _present_pairs(row: Block, column: Block) -> Array | None:
  if row.ok is None and column.ok is None:
    return None
  rows = jnp.ones(row.size, bool) if row.ok is None else row.ok
  columns = jnp.ones(column.size, bool) if column.ok is None else column.ok
  return rows[:, None] & columns[None, :]


def _add(total: PyTree, new: PyTree) -> PyTree:
  return jax.tree.map(lambda a, b: a + b.astype(a.dtype), total, new)
