"""Random masks of patches: independent patches (MAE, SimMIM) or rectangles (BEiT, FLAVA)."""

import math

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Key

from mmjax.parallel.ring import vary, varying_axes


def random_patches(rng: Key[Array, "batch"], patches: int, *, rate: float) -> Bool[Array, "batch patches"]:
  """Hides round(rate * patches) patches of each example, uniformly at random (MAE hides 0.75, SimMIM 0.6).

  Returns True for hidden patches. MAE's encoder sees `choose_positions(~hidden, patches - round(rate * patches))`.
  """
  noise = jax.vmap(lambda key: jax.random.uniform(key, (patches,)))(rng)
  rank = jnp.argsort(jnp.argsort(noise, axis=1), axis=1)
  return rank < round(rate * patches)


def block_patches(
  rng: Key[Array, "batch"], grid: tuple[int, int], *, rate: float = 0.4
) -> Bool[Array, "batch patches"]:
  """Hides round(rate * patches) patches in rectangles (Bao et al. 2022, BEiT, algorithm 1; FLAVA hides 0.4).

  Returns True for hidden patches. With single hidden patches, a model can copy colours and shapes from the adjacent
  patch; rectangles prevent this.

  A rectangle has an aspect ratio from 0.3 to 1 / 0.3 and covers at least 16 / 196 of the image. The last rectangle is
  cut to the number of patches that is still needed, row by row from its top or from its bottom, so that all examples
  hide the same number. Rectangles lie inside the image, so corners are hidden less often than the middle.
  """
  rows, columns = grid
  wanted = round(rate * rows * columns)
  smallest = max(1, rows * columns * 16 // 196)

  def rectangle(key: Array, left: Array) -> Array:
    area, aspect, top, side = jax.random.uniform(key, (4,))
    largest = jnp.maximum(left, smallest).astype(jnp.float32)
    size = smallest + area * (largest - smallest)
    ratio = jnp.exp((2.0 * aspect - 1.0) * math.log(1 / 0.3))
    high = jnp.clip(jnp.round(jnp.sqrt(size * ratio)), 1, rows)
    wide = jnp.clip(jnp.round(jnp.sqrt(size / ratio)), 1, columns)
    first, start = jnp.floor(top * (rows - high + 1)), jnp.floor(side * (columns - wide + 1))
    y, x = jnp.arange(rows, dtype=jnp.float32), jnp.arange(columns, dtype=jnp.float32)
    inside = lambda at, begin, length: (at >= begin) & (at < begin + length)
    return (inside(y, first, high)[:, None] & inside(x, start, wide)[None]).reshape(-1)

  def add(state: tuple[Array, Array]) -> tuple[Array, Array]:
    key, hidden = state
    key, now = jax.random.split(key)
    left = wanted - hidden.sum()
    fresh = rectangle(now, left) & ~hidden
    before = jnp.cumsum(fresh)
    before = jnp.where(jax.random.bernoulli(jax.random.fold_in(now, 1)), before, before[-1] - before + 1)
    return key, hidden | (fresh & (before <= left))

  def one(key: Array) -> Array:
    start = key, vary(jnp.zeros(rows * columns, bool), varying_axes(key))
    return lax.while_loop(lambda state: state[1].sum() < wanted, add, start)[1]

  return jax.vmap(one)(rng)
