"""Pairwise engine: exact losses over all pairs of the global batch, in memory O(rows * width + tile^2)."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.objectives.pairwise.passes import Layout, affine_total, statistics
from mmjax.objectives.pairwise.reductions import KINDS
from mmjax.objectives.pairwise.similarity import accumulator
from mmjax.objectives.pairwise.tiles import Block, Rules
from mmjax.parallel.ring import METHODS, AxisName, vary, varying_axes

Features = Mapping[str, Any]
# Measured on a CPU (scripts/benchmarks/RESULTS.md): with a single tile, the compiler keeps the logits for the backward
# pass, as a dense loss does. For larger matrices, tiles that fit in the cache are as fast as larger ones.
ONE_TILE, ONE_TILE_OF_A_RING, DEFAULT_TILE = 4096, 2048, 1024
SIDES = ("row", "col", "both")


@dataclasses.dataclass(frozen=True, eq=False)
class Pairwise:
  """Objective over all pairs, in three parts: a tile, its reductions, and a final function.

  Make one instance per objective, not one per call, because compiled programs are cached per instance.

  Attributes:
    tile: (row, col) -> {name: matrix [r, c]}, from the features of some rows and some columns. An example is
      {"logits": similarity(row["x"], col["y"], row["scale"])}. In addition to the features given to `pairwise_loss`,
      both contain "index", the global numbers of the examples. A scalar feature arrives as one value per example.
      -inf removes a pair from lse, softmean and max. The matrix of a softmean is a pair (logits, values).
    reduce: {name: (side, kind)}. Side is "row" (over the columns: one value per row), "col" or "both". Kind is "sum",
      "lse", "softmean" or "max". Over no pairs, lse and max are -1e30, and softmean and sum are 0.
    finish: (stats, row, col) -> losses per row, or (losses per row, losses per column), in plain JAX. It applies
      positives, margins and combinations. stats[name] is one statistic or, for "both", a pair (per row, per column).
    affine: a promise that all kinds are "sum" and that finish is affine in them. The gradient is then computed in the
      same pass as the value, with three matrix products per tile instead of four.
  """

  tile: Callable[[Features, Features], Mapping[str, Any]]
  reduce: Mapping[str, tuple[str, str]]
  finish: Callable[[Mapping[str, Any], Features, Features], Any]
  affine: bool = False

  def __post_init__(self) -> None:
    for name, (side, kind) in self.reduce.items():
      if side not in SIDES or kind not in KINDS:
        raise ValueError(f"reduce[{name!r}] = {(side, kind)}: sides are {SIDES}, kinds are {tuple(KINDS)}")
      if self.affine and kind != "sum":
        raise ValueError(f"reduce[{name!r}] is {kind!r}; only sums can be reduced with affine=True")

  @property
  def rules(self) -> Rules:
    """The tile function and the reductions of each side."""
    pick = lambda sides: {name: kind for name, (side, kind) in self.reduce.items() if side in sides}
    return Rules(self.tile, pick(("row", "both")), pick(("col", "both")))


def pairwise_loss(
  objective: Pairwise,
  rows: Features,
  columns: Features,
  *,
  axis_name: AxisName = None,
  tile_size: int | tuple[int, int] | None = None,
  method: str = "ring",
) -> Float[Array, ""]:
  """Mean of a pairwise objective over the global batch: the same on every device, with exact derivatives.

  Args:
    objective: the objective.
    rows: {name: array [size, ...] of the local examples, or a scalar shared by all}. "weight" ([size], at least 0) is
      the importance of each example in the mean. An example of weight 0 is absent: it is neither a positive nor a
      negative of any other example.
    columns: features of the columns, likewise. The number of columns may differ from the number of rows.
    axis_name: mesh axis or axes of the batch, inside shard_map or pmap; None: the arrays are the whole batch.
    tile_size: largest number of rows and columns of the pair matrix in memory at once, one number or two. None: one
      tile for a block of up to 4096 x 4096 (2048 x 2048 on several devices), otherwise tiles of 1024.
    method: "ring", "bidirectional", "nested" (the first of several axes is the slow one), "all_gather", or "autodiff":
      the ring without hand-written derivatives, for jvp and Hessians.
  Returns: the weighted mean of the losses from finish; a sum of two means if it returns losses per row and per column.
    0 with zero gradients if every example is absent.
  Raises:
    ValueError: features of one side have unequal lengths, an axis is not bound, the method is unknown, or a tile size
      is below 1.

  Example:
    >>> import jax.numpy as jnp
    >>> from mmjax.objectives import Pairwise, pairwise_loss, similarity
    >>> tile = lambda row, col: {"logits": similarity(row["x"], col["y"])}
    >>> log_sum = Pairwise(tile, {"logits": ("row", "lse")}, lambda stats, row, col: stats["logits"])
    >>> x = jnp.zeros((4, 2))
    >>> print(f"{pairwise_loss(log_sum, {'x': x}, {'y': x}):.3f}")  # log 4
    1.386
  """
  return _loss(objective, *_arguments(rows, columns, axis_name, tile_size, method))


def pairwise_statistics(
  objective: Pairwise,
  rows: Features,
  columns: Features,
  *,
  axis_name: AxisName = None,
  tile_size: int | tuple[int, int] | None = None,
  method: str = "ring",
) -> dict[str, Any]:
  """Statistics that `finish` receives, for objectives that keep state between steps or that average differently.

  The arguments are those of `pairwise_loss`, and it raises the same errors.

  Returns: {name: statistics per local row, per local column, or a pair of both}.
  """
  return _statistics(objective, *_arguments(rows, columns, axis_name, tile_size, method))


def batch_mean(
  losses: Float[Array, "size"], weight: Float[Array, "size"] | None = None, *, axis_name: AxisName = None
) -> Float[Array, ""]:
  """Weighted mean over the global batch. 0 if all weights are 0.

  Args:
    losses: losses of the local examples. Those of weight 0 are ignored, even if they are not finite.
    weight: importance of each example; None: 1.
    axis_name: mesh axis or axes of the batch, inside shard_map or pmap; None: the arrays are the whole batch.
  """
  weight = jnp.ones(losses.shape, losses.dtype) if weight is None else weight.astype(losses.dtype)
  total, count = (jnp.where(weight > 0, losses, 0) * weight).sum(), weight.sum()
  if axis_name is not None:
    total, count = jax.lax.psum((total, count), axis_name)
  return total / jnp.where(count > 0, count, 1)


def _arguments(rows: Features, columns: Features, axis_name: AxisName, tile_size: Any, method: str) -> tuple:
  axes = (axis_name,) if isinstance(axis_name, str) else axis_name and tuple(axis_name)
  _check(axes, tile_size, method)
  tile = (tile_size, tile_size) if isinstance(tile_size, int) else tile_size
  dtypes = [leaf.dtype for leaf in jax.tree.leaves((rows, columns)) if hasattr(leaf, "dtype")]
  dtype = accumulator(*dtypes)
  rows, columns = jax.tree.map(lambda x: jnp.asarray(x, dtype) if isinstance(x, float) else x, (rows, columns))
  return rows, columns, axes, tile, method


def _prepare(
  objective: Pairwise, rows: Features, columns: Features, axes: Any, tile: tuple[int, int] | None, method: str
) -> tuple[Block, Block, Layout]:
  varying = tuple(sorted({*(axes or ()), *varying_axes((rows, columns))}))
  row, column = (_block(f, axes, varying, side) for f, side in ((rows, "rows"), (columns, "columns")))
  small = row.size * column.size <= (ONE_TILE if axes is None else ONE_TILE_OF_A_RING) ** 2
  tile = tile or ((row.size, column.size) if small else (DEFAULT_TILE, DEFAULT_TILE))
  return row, column, Layout(axes, tile, method, varying, _check_tile(objective, row, column))


# Compiled once per objective and shape, so that calls outside jit do not compile again.
@partial(jax.jit, static_argnames=("objective", "axes", "tile", "method"))
def _statistics(objective: Pairwise, rows: Features, columns: Features, axes: Any, tile: Any, method: str) -> dict:
  row, column, layout = _prepare(objective, rows, columns, axes, tile, method)
  return _named(objective, row, column, *statistics(objective.rules, layout, row, column))


@partial(jax.jit, static_argnames=("objective", "axes", "tile", "method"))
def _loss(objective: Pairwise, rows: Features, columns: Features, axes: Any, tile: Any, method: str) -> Array:
  row, column, layout = _prepare(objective, rows, columns, axes, tile, method)
  weights = _total_weight(row, axes), _total_weight(column, axes)
  mean = lambda *stats: _local_mean(objective, row, column, weights, _named(objective, row, column, *stats))
  if objective.affine and method != "autodiff":
    rules = objective.rules
    nothing = tuple(
      {name: jnp.zeros(block.size, layout.dtype) for name in kinds}
      for kinds, block in ((rules.rows, row), (rules.columns, column))
    )
    constant, pull = jax.vjp(mean, *vary(nothing, layout.varying))
    slopes = pull(vary(jnp.ones((), constant.dtype), varying_axes(constant)))
    loss = constant + affine_total(rules, layout, row, column, *vary(slopes, layout.varying))
  else:
    loss = mean(*statistics(objective.rules, layout, row, column))
  return loss if axes is None else jax.lax.psum(loss, axes)


def _named(
  objective: Pairwise,
  row: Block,
  column: Block,
  row_stats: Mapping[str, Array],
  column_stats: Mapping[str, Array],
) -> dict[str, Any]:
  """Statistics in the form that `finish` reads. Those of absent examples are 0."""
  present = lambda value, block: value if block.ok is None else jnp.where(block.ok, value, 0)
  row_stats = {name: present(value, row) for name, value in row_stats.items()}
  column_stats = {name: present(value, column) for name, value in column_stats.items()}
  both = {name: (row_stats[name], column_stats[name]) for name in row_stats if name in column_stats}
  return {**row_stats, **column_stats, **both}


def _local_mean(
  objective: Pairwise, row: Block, column: Block, weights: tuple[Array, Array], stats: Mapping[str, Any]
) -> Array:
  """This device's part of the mean: the weighted losses of present examples, divided by the global weight."""
  losses = objective.finish(stats, row.features, column.features)
  parts = losses if isinstance(losses, tuple) else (losses,)
  total = jnp.zeros((), parts[0].dtype)
  for part, block, weight in zip(parts, (row, column), weights, strict=False):
    if part.shape != (block.size,):
      raise ValueError(f"finish returned losses of shape {part.shape} for {block.size} examples")
    if block.ok is not None:
      part = jnp.where(block.ok, part * block.features["weight"].astype(part.dtype), 0)
    total = total + part.sum() / weight.astype(part.dtype)
  return total


def _block(features: Features, axes: tuple[str, ...] | None, varying: tuple[str, ...], side: str) -> Block:
  """Features with scalars broadcast over the examples, and the examples' global numbers as "index".

  This runs outside the code with hand-written derivatives.
  """
  if "index" in features:
    raise ValueError(f"{side}[\"index\"] is the engine's own name for the examples' global numbers: rename the feature")
  features = jax.tree.map(jnp.asarray, dict(features))
  named = jax.tree_util.tree_leaves_with_path(features)
  sizes = {side + jax.tree_util.keystr(path): leaf.shape[0] for path, leaf in named if leaf.ndim}
  if len(set(sizes.values())) != 1:
    raise ValueError(f"features of one side must have the same number of examples, got {sizes or 'none'}")
  (size,) = set(sizes.values())
  features = vary(features, varying)
  spread = jax.tree.map(lambda leaf: leaf if leaf.ndim else jnp.broadcast_to(leaf, (size,)), features)
  first = jnp.int32(0) if axes is None else (jax.lax.axis_index(axes) * size).astype(jnp.int32)
  spread["index"] = vary(first + jnp.arange(size, dtype=jnp.int32), varying)
  return Block(spread, spread["weight"] > 0 if "weight" in spread else None)


def _total_weight(block: Block, axes: tuple[str, ...] | None) -> Array:
  """Weight of the global batch. 1 if no example is present, so that the mean is 0."""
  if block.ok is None:
    return jnp.asarray(block.size * (1 if axes is None else jax.lax.axis_size(axes)), jnp.float32)
  weight = jnp.where(block.ok, block.features["weight"], 0).sum()
  weight = weight if axes is None else jax.lax.psum(weight, axes)
  return jnp.where(weight > 0, weight, 1)


def _check(axes: tuple[str, ...] | None, tile_size: Any, method: str) -> None:
  if method not in (*METHODS, "autodiff"):
    raise ValueError(f"unknown method {method!r}; methods are {', '.join(METHODS)} and autodiff")
  if method == "nested" and (axes is None or len(axes) < 2):
    raise ValueError(f'method "nested" needs at least two axes, the slow one first, got axis_name={axes}')
  sizes = tile_size if isinstance(tile_size, tuple) else (tile_size, tile_size)
  if tile_size is not None and (len(sizes) != 2 or any(not isinstance(t, int) or t < 1 for t in sizes)):
    raise ValueError(f"tile_size must be a whole number of at least 1, or two of them, got {tile_size!r}")
  for axis in axes or ():
    try:
      jax.lax.axis_size(axis)
    except NameError as error:
      raise ValueError(
        f"axis {axis!r} is not bound here: call inside shard_map or pmap over it, or leave axis_name=None"
      ) from error


def _check_tile(objective: Pairwise, row: Block, column: Block) -> Any:
  """Raises ValueError unless the tile's matrices are [rows, columns]. Returns the dtype of the statistics."""
  outputs = jax.eval_shape(objective.tile, row.features, column.features)
  if set(outputs) != set(objective.reduce):
    raise ValueError(f"tile returns {sorted(outputs)} but reduce names {sorted(objective.reduce)}")
  for name, leaf in ((name, leaf) for name, out in outputs.items() for leaf in jax.tree.leaves(out)):
    if leaf.shape != (row.size, column.size):
      raise ValueError(f"tile's {name!r} has shape {leaf.shape}, expected [rows, columns] = {row.size, column.size}")
  return accumulator(*(leaf.dtype for leaf in jax.tree.leaves(outputs)))
