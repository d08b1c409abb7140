"""Microbatching as a transformation: activations of one microbatch at a time, and unchanged gradients."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

PyTree = Any


def microbatch(fn: Callable[..., PyTree], num_microbatches: int, *, together: int = 1) -> Callable[..., PyTree]:
  """Maps `fn` over microbatches of its arguments, one after another, with rematerialisation.

  This is GradCache (Gao et al. 2021) if a pairwise loss follows.

  Row i goes to microbatch i // together % num_microbatches. An array that is sharded over its leading axis therefore
  stays in place, both under plain jit and inside shard_map. Inside shard_map, cast closed-over parameters to varying
  *before* the call (`jax.lax.pcast`). Otherwise the all-reduce of their gradient runs once per microbatch.

  Args:
    fn: (*pytrees with leading axis n) -> pytree with leading axis n. It may close over parameters. Row i of its result
      must not depend on other rows, except where a dependence within the microbatch is intended (in-batch negatives).
    num_microbatches: number of microbatches. With 1, `fn` is returned as it is, without rematerialisation.
    together: number of consecutive rows that stay together in one microbatch (groups of in-batch negatives).
  Returns: a function with the same signature. Its results are in the original order.
  Raises:
    ValueError: num_microbatches is less than 1, the leading axes differ, or they are not a multiple of
      num_microbatches * together.

  Example:
    >>> import jax.numpy as jnp
    >>> from mmjax.parallel import microbatch
    >>> microbatch(lambda x: 2 * x, 2)(jnp.arange(4)).tolist()
    [0, 2, 4, 6]
  """
  if num_microbatches < 1:
    raise ValueError(f"num_microbatches must be at least 1, got {num_microbatches}")
  if num_microbatches == 1:
    return fn

  def mapped(*args: PyTree) -> PyTree:
    size = _batch_size(args, num_microbatches, together)
    step = jax.checkpoint(lambda piece: fn(*piece), prevent_cse=False)  # a loop body needs no CSE barrier
    result = jax.lax.map(step, jax.tree.map(lambda leaf: _split(leaf, num_microbatches, together), args))
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _join(path, leaf, size, together), result)

  return mapped


def _batch_size(args: PyTree, num_microbatches: int, together: int) -> int:
  sizes = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(args):
    if leaf.ndim == 0:
      raise ValueError(f"microbatch: argument {jax.tree_util.keystr(path)} is a scalar and has no leading axis")
    sizes[jax.tree_util.keystr(path)] = leaf.shape[0]
  if len(set(sizes.values())) != 1:
    raise ValueError(f"microbatch: arguments must share one leading axis, got {sizes or 'no arrays'}")
  size = next(iter(sizes.values()))
  if size % (num_microbatches * together):
    groups = f" of groups of {together} rows" if together > 1 else ""
    raise ValueError(
      f"microbatch: a batch of {size} cannot be divided into {num_microbatches} equal microbatches{groups}; "
      f"make the (per-device) batch a multiple of {num_microbatches * together}"
    )
  return size


def _split(leaf: Array, num: int, together: int) -> Array:
  """[n * num, ...] -> [num, n, ...], with row i in part i // together % num. The sharded axis stays the major one."""
  rows, rest = leaf.shape[0] // num, leaf.shape[1:]
  return leaf.reshape(rows // together, num, together, *rest).swapaxes(0, 1).reshape(num, rows, *rest)


def _join(path: Any, leaf: Array, size: int, together: int) -> Array:
  if leaf.ndim < 2 or leaf.shape[0] * leaf.shape[1] != size:
    name = jax.tree_util.keystr(path) or "the result"
    raise ValueError(
      f"microbatch: {name} of the mapped function has shape {leaf.shape[1:]}; its leading axis must be "
      "that of the microbatch"
    )
  (num, rows), rest = leaf.shape[:2], leaf.shape[2:]
  return leaf.reshape(num, rows // together, together, *rest).swapaxes(0, 1).reshape(size, *rest)
