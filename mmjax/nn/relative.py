"""Relative position bias: a learned number for each head and each range of distances (Raffel et al. 2020, T5)."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int


def distance_buckets(
  length: int, *, buckets: int, distance: int, causal: bool, places: Int[Array, "*rows q"] | None = None
) -> Int[Array, "*rows q length"]:
  """Bucket of the distance of each query (row) and key (column).

  Short distances have a bucket each. Longer ones share buckets whose sizes grow with the logarithm of the distance.

  Args:
    length: number of keys.
    buckets: number of buckets. Half of them are for keys that come after their query, unless `causal`.
    distance: all distances from here on share a bucket.
    causal: if True, keys after their query are not read, and have bucket 0.
    places: positions of the queries. None: those of the keys.

  Example:
    >>> from mmjax.nn.relative import distance_buckets
    >>> distance_buckets(4, buckets=8, distance=6, causal=False)[0].tolist()
    [0, 5, 6, 6]
  """
  reach = min(length, distance)
  table = jnp.asarray(_of_offsets(np.arange(-reach, reach + 1), buckets, distance, causal))
  keys = jnp.arange(length, dtype=jnp.int32)  # traced: a configuration may claim a length of millions
  places = keys if places is None else places
  offset = jnp.expand_dims(keys, range(places.ndim)) - places[..., None]
  return jnp.take(table, jnp.clip(offset, -reach, reach) + reach)


def _of_offsets(offset: np.ndarray, buckets: int, distance: int, causal: bool) -> np.ndarray:
  """Bucket of each offset of a key from its query."""
  if causal:
    first, away = np.zeros_like(offset), np.maximum(-offset, 0)
  else:
    buckets //= 2
    first, away = np.where(offset > 0, buckets, 0), np.abs(offset)
  exact = buckets // 2
  # In float32, as in T5's code: at powers of two, more digits would give another bucket.
  ratio = np.log(np.maximum(away, 1).astype(np.float32) / np.float32(exact)) / np.float32(math.log(distance / exact))
  far = np.minimum(exact + (ratio * np.float32(buckets - exact)).astype(np.int32), buckets - 1)
  return (first + np.where(away < exact, away, far)).astype(np.int32)


class RelativeBias(nn.Module):
  """Bias of the attention logits by the distance of query and key. Parameter: table [buckets, heads].

  Attributes:
    num_heads: number of attention heads.
    buckets, distance, causal: see `distance_buckets`.
  """

  num_heads: int
  buckets: int
  distance: int
  causal: bool

  @nn.compact
  def __call__(self, length: int, places: Int[Array, "batch q"] | None = None) -> Float[Array, "#batch heads q length"]:
    """Returns the biases.

    Args:
      length: number of keys.
      places: positions of the queries of each row. None: those of the keys, the same in all rows.
    """
    table = self.param("table", nn.initializers.normal(0.02), (self.buckets, self.num_heads), jnp.float32)
    far: Any = dict(buckets=self.buckets, distance=self.distance, causal=self.causal)
    bias = jnp.moveaxis(jnp.take(table, distance_buckets(length, **far, places=places), axis=0), -1, -3)
    return bias[None] if places is None else bias
