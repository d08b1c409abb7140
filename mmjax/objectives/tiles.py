"""One meeting of a block of rows with a block of columns, tile by tile: statistics forward, gradients
backward."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool

from mmjax.objectives.reductions import KINDS
from mmjax.objectives.similarity import accumulator

PyTree = Any
Tile = tuple[int, int]


class Block(NamedTuple):
  """Some rows (or columns) of the pair matrix.

  Attributes:
    features: what the objective's tile reads; leaves with one leading axis. "index" is the global number.
    ok: False where an example is absent (padding, weight 0); None where all are present.
  """

  features: Mapping[str, PyTree]
  ok: Bool[Array, "size"] | None

  @property
  def size(self) -> int:
    return self.features["index"].shape[0]


class Rules(NamedTuple):
  """How a pair matrix is made and reduced: {name of the tile's output: kind of reduction} for either side."""

  tile: Callable[[Mapping[str, PyTree], Mapping[str, PyTree]], Mapping[str, PyTree]]
  rows: dict[str, str]
  columns: dict[str, str]


def start(kinds: dict[str, str], size: int, dtype: Any) -> dict[str, PyTree]:
  return {name: KINDS[kind].start(size, dtype) for name, kind in kinds.items()}


def merge(kinds: dict[str, str], one: PyTree, two: PyTree) -> dict[str, PyTree]:
  return {name: KINDS[kind].merge(one[name], two[name]) for name, kind in kinds.items()}


def tile_outputs(rules: Rules, row: Block, column: Block) -> dict[str, PyTree]:
  """The objective's matrices for one tile, absent pairs filled so that they change no reduction."""
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
  return (
    {name: KINDS[kind].tile(outputs[name], 1, column.features["index"]) for name, kind in rules.rows.items()},
    {name: KINDS[kind].tile(outputs[name], 0, row.features["index"]) for name, kind in rules.columns.items()},
  )


def tile_cotangents(rules: Rules, outputs: PyTree, row: "Back", column: "Back") -> dict[str, PyTree]:
  """d(loss) / d(every entry of every matrix of the tile), from the cotangents of the statistics."""
  total: dict[str, PyTree] = {}
  sides = ((rules.rows, row, column, 1), (rules.columns, column, row, 0))
  for kinds, this, other, axis in sides:
    for name, kind in kinds.items():
      index = other.block.features["index"]
      flow = KINDS[kind].pull(this.cotangent[name], this.residual[name], outputs[name], axis, index)
      total[name] = jax.tree.map(jnp.add, total[name], flow) if name in total else flow
  return total


class Back(NamedTuple):
  """A block on its way back: with what its statistics left behind, and their cotangents."""

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
  """Merges the statistics of rows x columns into the states."""
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
  """Adds the gradients of rows x columns to the sums, each a pair (states, gradients).

  States are those of the same pass: an affine objective needs them, for others they are empty.
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
  """Runs `body` over all tiles, one after another; the sums are updated in place, padding is cut off
  again."""
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
  """(leaves with a gradient, the others); None stands where the other half has the leaf."""
  inexact = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.inexact)
  return (
    jax.tree.map(lambda leaf: leaf if inexact(leaf) else None, tree),
    jax.tree.map(lambda leaf: None if inexact(leaf) else leaf, tree),
  )


def combine(one: PyTree, two: PyTree) -> PyTree:
  return jax.tree.map(lambda a, b: b if a is None else a, one, two, is_leaf=lambda leaf: leaf is None)


def loop(count: int, body: Callable[[Any, PyTree], PyTree], carry: PyTree) -> PyTree:
  return body(0, carry) if count == 1 else jax.lax.fori_loop(0, count, body, carry)


def take(tree: PyTree, k: Any, size: int) -> PyTree:
  """Rows k * size to (k + 1) * size of every leaf."""
  whole = lambda leaf: isinstance(k, int) and k == 0 and leaf.shape[0] == size
  cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, k * size, size)
  return jax.tree.map(lambda leaf: leaf if whole(leaf) else cut(leaf), tree)


def put(tree: PyTree, rows: PyTree, k: Any, size: int) -> PyTree:
  write = lambda leaf, new: jax.lax.dynamic_update_slice_in_dim(leaf, new, k * size, 0)
  return jax.tree.map(lambda leaf, new: new if leaf.shape == new.shape else write(leaf, new), tree, rows)


def fit(size: int, limit: int) -> int:
  """The tile size of at most `limit` that leaves the least padding for the least number of tiles."""
  return -(-size // -(-size // limit))


def pad(tree: PyTree, multiple: int) -> PyTree:
  """Up to a multiple, by repeating the last example (a zero might become a NaN in a tile); masks by False."""

  def one(leaf: Array) -> Array:
    extra = -leaf.shape[0] % multiple
    width = ((0, extra),) + ((0, 0),) * (leaf.ndim - 1)
    return jnp.pad(leaf, width, mode="constant" if leaf.dtype == bool else "edge") if extra else leaf

  return jax.tree.map(one, tree)


def _ready(block: Block, tile: int) -> Block:
  """With an `ok` mask where padding is coming."""
  return block._replace(ok=jnp.ones(block.size, bool)) if block.ok is None and block.size % tile else block


def _present_pairs(row: Block, column: Block) -> Array | None:
  if row.ok is None and column.ok is None:
    return None
  rows = jnp.ones(row.size, bool) if row.ok is None else row.ok
  columns = jnp.ones(column.size, bool) if column.ok is None else column.ok
  return rows[:, None] & columns[None, :]


def _add(total: PyTree, new: PyTree) -> PyTree:
  return jax.tree.map(lambda a, b: a + b.astype(a.dtype), total, new)
