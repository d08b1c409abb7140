"""Slow, obvious references: the whole N x N matrix at once, differentiated by JAX, in whatever precision it
is given."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType


def clip(image, text, scale, weights=None, ids=None):
  """scale: scalar or [n]; weights: [n], 0 is absent; ids: equal ones are no negatives of each other."""
  n = len(image)
  weights = jnp.ones(n, image.dtype) if weights is None else weights
  logits = jnp.broadcast_to(scale, (n,))[:, None] * (image @ text.T)
  hidden = (weights == 0)[:, None] | (weights == 0)[None, :]
  if ids is not None:
    hidden |= (ids[:, None] == ids[None, :]) & ~jnp.eye(n, dtype=bool)
  hidden &= ~jnp.eye(n, dtype=bool)  # a loss of weight 0 may be anything finite
  pairs = jnp.diagonal(logits)
  logits = jnp.where(hidden, -jnp.inf, logits)
  losses = (jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)) / 2 - pairs
  return (weights * losses).sum() / weights.sum()


def siglip(image, text, scale, bias, weights=None, ids=None):
  n = len(image)
  weights = jnp.ones(n, image.dtype) if weights is None else weights
  logits = jnp.broadcast_to(scale, (n,))[:, None] * (image @ text.T) + jnp.broadcast_to(bias, (n,))[:, None]
  z = 2 * jnp.eye(n, dtype=image.dtype) - 1
  losses = -jax.nn.log_sigmoid(z * logits) * weights[:, None] * weights[None, :]
  if ids is not None:
    losses = jnp.where((ids[:, None] == ids[None, :]) & ~jnp.eye(n, dtype=bool), 0, losses)
  return losses.sum() / weights.sum()


def reduce(a, side, kind):
  """One statistic of a whole matrix (softmean: of a pair of them)."""
  if side == "both":
    return reduce(a, "row", kind), reduce(a, "col", kind)
  axis = {"row": 1, "col": 0}[side]
  if kind == "softmean":
    return (jax.nn.softmax(a[0], axis=axis) * a[1]).sum(axis)
  return {"sum": jnp.sum, "lse": jax.nn.logsumexp, "max": jnp.max}[kind](a, axis=axis)


def objective_mean(objective, rows, columns):
  """What pairwise_loss must equal for full, equally weighted batches."""
  spread = lambda side, size: {k: jnp.broadcast_to(v, (size,)) if v.ndim == 0 else v for k, v in side.items()}
  n, m = (next(v.shape[0] for v in side.values() if v.ndim) for side in (rows, columns))
  rows, columns = spread(rows, n) | {"index": jnp.arange(n)}, spread(columns, m) | {"index": jnp.arange(m)}
  matrices = objective.tile(rows, columns)
  stats = {name: reduce(matrices[name], *how) for name, how in objective.reduce.items()}
  losses = objective.finish(stats, rows, columns)
  return sum(part.mean() for part in losses) if isinstance(losses, tuple) else losses.mean()


def unit(n, d, seed, dtype=jnp.float32):
  """[n, d] random unit vectors."""
  x = np.random.default_rng(seed).standard_normal((n, d))
  return jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), dtype)


def mesh_of(*shape):
  axes = ("data", "fsdp")[: len(shape)]
  devices = jax.devices()[: int(np.prod(shape))]
  return jax.make_mesh(shape, axes, devices=devices, axis_types=(AxisType.Auto,) * len(shape)), axes


def error(got, want):
  """Largest absolute difference over two trees, relative to each leaf's largest entry where that is above
  1."""
  one = lambda a, b: float(jnp.abs(a - b).max() / jnp.maximum(1, jnp.abs(b).max()))
  return max(jax.tree.leaves(jax.tree.map(one, got, want)))


def relative(got, want):
  """|got - want| / |want| in the Euclidean norm, the worst of the leaves."""
  one = lambda a, b: float(jnp.linalg.norm((a.astype(jnp.float64) - b).ravel()) / jnp.linalg.norm(b.ravel()))
  return max(jax.tree.leaves(jax.tree.map(one, got, want)))


def sharded(fn, mesh, axes, specs, **options):
  """fn under shard_map with a replicated result."""
  return partial(jax.shard_map, mesh=mesh, in_specs=specs, out_specs=jax.sharding.PartitionSpec(), **options)(fn)
