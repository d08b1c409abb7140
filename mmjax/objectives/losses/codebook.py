"""Codebook of patches: discrete targets for masked image modelling, without a trained tokenizer."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Key


def nearest_code(
  patches: Float[Array, "batch patches pixels"], codebook: Float[Array, "codes pixels"]
) -> Int[Array, "batch patches"]:
  """Number of the nearest codebook entry of each patch, by Euclidean distance (of equal distances, the first)."""
  x, codes = patches.astype(jnp.float32), codebook.astype(jnp.float32)
  distance = jnp.square(codes).sum(-1)[None, None] - 2.0 * jnp.einsum("bpd,cd->bpc", x, codes)
  return jnp.argmin(distance, axis=-1).astype(jnp.int32)


def fit_codebook(
  patches: Float[Array, "n pixels"], codes: int, *, key: Key[Array, ""], iterations: int = 20
) -> Float[Array, "codes pixels"]:
  """Fits a codebook by k-means over patches (Lloyd 1982). The result depends on the patches and the key only.

  The centres are initialised by k-means++ (Arthur and Vassilvitskii 2007): each centre is a patch, drawn with
  probability proportional to its squared distance from the earlier centres. A centre that is nearest to no patch stays
  where it is.

  Args:
    patches: pixels of the patches.
    codes: number of codebook entries.
    key: random key of the initialisation.
    iterations: number of k-means iterations.
  Raises:
    ValueError: there are fewer patches than codes.
  """
  if len(patches) < codes:
    raise ValueError(f"{codes} codes need at least as many patches, got {len(patches)}")
  x = jnp.asarray(patches, jnp.float32)

  def draw(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
    centres, distance = state
    some = jnp.where(distance.max() > 0, distance, 1.0)  # if every patch is already a centre, draw any
    centre = x[jax.random.categorical(jax.random.fold_in(key, i), jnp.log(some))]
    return centres.at[i].set(centre), jnp.minimum(distance, jnp.square(x - centre[None]).sum(-1))

  def improve(_: Array, centres: Array) -> Array:
    nearest = nearest_code(x[None], centres)[0]
    count = jnp.zeros(codes, jnp.float32).at[nearest].add(1.0)
    total = jnp.zeros_like(centres).at[nearest].add(x)
    return jnp.where(count[:, None] > 0, total / jnp.maximum(count, 1.0)[:, None], centres)

  far = jnp.full(len(x), jnp.finfo(jnp.float32).max)
  centres, _ = lax.fori_loop(0, codes, draw, (jnp.zeros((codes, x.shape[1]), jnp.float32), far))
  return lax.fori_loop(0, iterations, improve, centres)
