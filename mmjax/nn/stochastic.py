"""Randomness in networks, with one key per example.

A random effect on an example depends neither on its place in the batch nor on devices or microbatches. `None` in place
of keys means evaluation: nothing is random.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

Rngs = Key[Array, "batch"] | None


def fold_in(rng: Rngs, stream: int | Array) -> Rngs:
  """Derives an independent key per example for a stream: the number of a layer or of a tower."""
  return None if rng is None else jax.vmap(jax.random.fold_in, in_axes=(0, None))(rng, stream)


def drop_path(
  x: Float[Array, "*rows width"], *, rate: float | Float[Array, ""], rng: Rngs
) -> Float[Array, "*rows width"]:
  """Sets a branch to zero for whole examples with probability `rate`, and scales the others by 1 / (1 - rate).

  `x` is [batch, length, width], or [batch * length, width] with the tokens of each example in adjacent rows.

  Source: stochastic depth, Huang et al. 2016, in the "inverted" form of Touvron et al. 2021.
  """
  if rng is None:
    return x
  keep = jnp.asarray(1.0 - rate, jnp.float32)
  kept = jax.vmap(jax.random.bernoulli, in_axes=(0, None))(rng, keep)
  factor = jnp.repeat((kept.astype(jnp.float32) / keep).astype(x.dtype), x.shape[0] // rng.shape[0])
  return x * jnp.expand_dims(factor, range(1, x.ndim))


def dropout_factors(shape: tuple[int, ...], *, rate: float, rng: Rngs) -> Float[Array, "batch *shape"] | None:
  """Factors for the elements of a `shape` per example: 0 with probability `rate`, otherwise 1 / (1 - rate), in float32.

  Source: dropout, Srivastava et al. 2014, in the inverted form, which leaves evaluation unchanged.

  Returns: the factors; None if nothing is dropped (`rng` is None, or `rate` is 0).
  """
  if rng is None or rate == 0.0:
    return None
  kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - rate, shape))(rng)
  return kept.astype(jnp.float32) / (1.0 - rate)


def dropout(x: Float[Array, "batch *shape"], *, rate: float, rng: Rngs) -> Float[Array, "batch *shape"]:
  """Sets elements to zero with probability `rate`, and scales the others by 1 / (1 - rate)."""
  factors = dropout_factors(x.shape[1:], rate=rate, rng=rng)
  return x if factors is None else x * factors.astype(x.dtype)


def drop_patches(
  patches: Float[Array, "batch length width"], *, rate: float, rng: Rngs
) -> Float[Array, "batch kept width"]:
  """Keeps a random subset of the patches in their order, the same number in every example (FLIP, Li et al. 2023)."""
  if rng is None or rate == 0.0:
    return patches
  length = patches.shape[1]
  kept = max(1, round(length * (1.0 - rate)))
  scores = jax.vmap(lambda key: jax.random.uniform(key, (length,)))(rng)
  indices = jnp.sort(jnp.argsort(scores, axis=1)[:, :kept], axis=1)
  return jnp.take_along_axis(patches, indices[:, :, None], axis=1)
