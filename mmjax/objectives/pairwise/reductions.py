"""Reductions of a pair matrix over rows or columns, tile by tile, with hand-written derivatives.

Each reduction is an associative and commutative summary, with these members:

* fill: value of absent pairs in a tile.
* start(size, dtype): state over no pairs.
* tile(a, axis, index): state of one tile `a`, reduced over `axis`.
* merge(one, two): state over the pairs of both.
* value(state): the statistic.
* residual(state): values that the derivative needs.
* pull(g, residual, a, axis, index): cotangent of the tile.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

EMPTY = -1e30  # lse or max over no pairs: finite, so that a product with a weight of zero is zero


class Sum:
  """Sum; 0 over no pairs."""

  fill = 0.0

  @staticmethod
  def start(size: int, dtype: Any) -> Any:
    return jnp.zeros(size, dtype)

  @staticmethod
  def tile(a: Array, axis: int, index: Array) -> Any:
    return a.sum(axis)

  @staticmethod
  def merge(one: Any, two: Any) -> Any:
    return one + two

  @staticmethod
  def value(state: Any) -> Array:
    return state

  @staticmethod
  def residual(state: Any) -> Any:
    return ()

  @staticmethod
  def pull(g: Array, residual: Any, a: Array, axis: int, index: Array) -> Any:
    """Cotangent of a tile.

    Args:
      g: cotangent of the statistic.
      residual: result of `residual`.
      a: the tile, with absent pairs filled by `fill`.
      axis: the reduced axis.
      index: global numbers of the elements along the reduced axis.
    """
    return jnp.broadcast_to(jnp.expand_dims(g, axis), a.shape)


class LogSumExp:
  """Log-sum-exp; EMPTY over no pairs."""

  fill = -jnp.inf

  @staticmethod
  def start(size: int, dtype: Any) -> Any:
    return jnp.full(size, EMPTY, dtype), jnp.zeros(size, dtype)

  @staticmethod
  def tile(a: Array, axis: int, index: Array) -> Any:
    top = _stop(jnp.maximum(a.max(axis), EMPTY))
    return top, jnp.exp(a - jnp.expand_dims(top, axis)).sum(axis)

  @staticmethod
  def merge(one: Any, two: Any) -> Any:
    top = jnp.maximum(one[0], two[0])
    return top, one[1] * jnp.exp(one[0] - top) + two[1] * jnp.exp(two[0] - top)

  @staticmethod
  def value(state: Any) -> Array:
    top, total = state
    some = total > 0
    return jnp.where(some, top + jnp.log(jnp.where(some, total, 1)), EMPTY)

  @staticmethod
  def residual(state: Any) -> Any:
    return LogSumExp.value(state)

  @staticmethod
  def pull(g: Array, residual: Any, a: Array, axis: int, index: Array) -> Any:
    """Cotangent of a tile. The arguments are those of `Sum.pull`."""
    return jnp.expand_dims(g, axis) * jnp.exp(a - jnp.expand_dims(residual, axis))


class SoftMean:
  """Mean of values under the softmax of logits; 0 over no pairs. The tile is a pair (logits, values)."""

  fill = -jnp.inf

  @staticmethod
  def start(size: int, dtype: Any) -> Any:
    return *LogSumExp.start(size, dtype), jnp.zeros(size, dtype)

  @staticmethod
  def tile(a: tuple[Array, Array], axis: int, index: Array) -> Any:
    logits, values = a
    top = _stop(jnp.maximum(logits.max(axis), EMPTY))
    mass = jnp.exp(logits - jnp.expand_dims(top, axis))
    return top, mass.sum(axis), (mass * values).sum(axis)

  @staticmethod
  def merge(one: Any, two: Any) -> Any:
    top = jnp.maximum(one[0], two[0])
    left, right = jnp.exp(one[0] - top), jnp.exp(two[0] - top)
    return top, one[1] * left + two[1] * right, one[2] * left + two[2] * right

  @staticmethod
  def value(state: Any) -> Array:
    _, total, weighted = state
    return weighted / jnp.where(total > 0, total, 1)

  @staticmethod
  def residual(state: Any) -> Any:
    return LogSumExp.value(state[:2]), SoftMean.value(state)

  @staticmethod
  def pull(g: Array, residual: Any, a: tuple[Array, Array], axis: int, index: Array) -> Any:
    """Cotangents of logits and values. The arguments are those of `Sum.pull`."""
    logits, values = a
    lse, mean = (jnp.expand_dims(v, axis) for v in residual)
    flow = jnp.expand_dims(g, axis) * jnp.exp(logits - lse)
    return flow * (values - mean), flow


class Max:
  """Largest entry; EMPTY over no pairs.

  The gradient goes to the first position of the maximum. The position is stored, because a recomputed tile may differ
  in the last bit.
  """

  fill = -jnp.inf

  @staticmethod
  def start(size: int, dtype: Any) -> Any:
    return jnp.full(size, EMPTY, dtype), jnp.full(size, -1, jnp.int32)

  @staticmethod
  def tile(a: Array, axis: int, index: Array) -> Any:
    return jnp.maximum(a.max(axis), EMPTY), index[a.argmax(axis)]

  @staticmethod
  def merge(one: Any, two: Any) -> Any:
    first = one[0] >= two[0]
    return jnp.where(first, one[0], two[0]), jnp.where(first, one[1], two[1])

  @staticmethod
  def value(state: Any) -> Array:
    return state[0]

  @staticmethod
  def residual(state: Any) -> Any:
    return state[1]

  @staticmethod
  def pull(g: Array, residual: Any, a: Array, axis: int, index: Array) -> Any:
    """Cotangent of a tile. The arguments are those of `Sum.pull`."""
    hit = jnp.expand_dims(residual, axis) == jnp.expand_dims(index, 1 - axis)
    return jnp.where(hit, jnp.expand_dims(g, axis), 0)


def _stop(x: Array) -> Array:
  """Stops the gradient of the shift in a log-sum-exp.

  The shift does not change the result, so its derivatives of every order are 0.
  """
  return jax.lax.stop_gradient(x)


KINDS: dict[str, Any] = {"sum": Sum, "lse": LogSumExp, "softmean": SoftMean, "max": Max}
