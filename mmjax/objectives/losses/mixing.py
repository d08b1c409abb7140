"""Mixup and CutMix: two images become one, and so do their classes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key


class Mixed(NamedTuple):
  """Images of which some are mixed with the next one of their group.

  Attributes:
    images: the images.
    share: the part of each image that is its own. The rest is its partner's (see `partners`).
  """

  images: Float[Array, "batch height width channels"]
  share: Float[Array, "batch"]


def partners(rows: Array, group: int) -> Array:
  """The row that each row is mixed with: the next one of its group of consecutive rows (the last: the first)."""
  grouped = rows.reshape(-1, group, *rows.shape[1:])
  return jnp.roll(grouped, -1, axis=1).reshape(rows.shape)


def mixup(
  images: Float[Array, "batch height width channels"], keys: Key[Array, "batch"], *, alpha: float, group: int
) -> Mixed:
  """Blend each image with its partner: share * image + (1 - share) * partner (Zhang et al. 2018, equation 1).

  Args:
    images: the images.
    keys: one key per image.
    alpha: the share is drawn from Beta(alpha, alpha) for each image.
    group: number of consecutive rows among which images are mixed.
  """
  share = _shares(keys, alpha)
  blend = share[:, None, None, None].astype(images.dtype)
  return Mixed(blend * images + (1 - blend) * partners(images, group), share)


def cutmix(
  images: Float[Array, "batch height width channels"], keys: Key[Array, "batch"], *, alpha: float, group: int
) -> Mixed:
  """Replace a rectangle of each image by that of its partner (Yun et al. 2019, equations 1 and 2).

  The rectangle has the image's proportions and an area of 1 - Beta(alpha, alpha). Its centre is uniform. What lies
  outside of the image is cut off, and the share is that of the pixels that are left.

  Args:
    images: the images.
    keys: one key per image.
    alpha: parameter of the distribution of the area.
    group: number of consecutive rows among which images are mixed.
  """
  height, width = images.shape[1:3]
  side = jnp.sqrt(1 - _shares(keys, alpha))
  centre = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 1), (2,)))(keys)
  rows = _between(height, centre[:, 0], side)
  columns = _between(width, centre[:, 1], side)
  cut = rows[:, :, None] & columns[:, None, :]
  share = 1 - cut.mean((1, 2), dtype=jnp.float32)
  return Mixed(jnp.where(cut[..., None], partners(images, group), images), share)


def _shares(keys: Key[Array, "batch"], alpha: float) -> Float[Array, "batch"]:
  return jax.vmap(lambda key: jax.random.beta(jax.random.fold_in(key, 0), alpha, alpha))(keys)


def _between(length: int, centre: Float[Array, "batch"], side: Float[Array, "batch"]) -> Array:
  """True at the places of an axis that a piece of length `side` (of 1) around `centre` (in 0 to 1) covers."""
  places = (jnp.arange(length, dtype=jnp.float32) + 0.5) / length
  return jnp.abs(places[None] - centre[:, None]) < side[:, None] / 2
