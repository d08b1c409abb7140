"""Images as patches: cut and normalise them."""

import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax
from jaxtyping import Float


def patchify(
  images: Float[Array, "batch height width channels"], patch_size: int
) -> Float[Array, "batch patches pixels"]:
  """Cuts images into square patches, row by row, each flattened as (row, column, channel).

  This is the order of the vision transformer's tokens.

  Raises:
    ValueError: patch_size does not divide the sides.

  Example:
    >>> import jax.numpy as jnp
    >>> from mmjax.objectives import patchify
    >>> patchify(jnp.zeros((1, 8, 8, 3)), 4).shape
    (1, 4, 48)
  """
  if images.shape[1] % patch_size or images.shape[2] % patch_size:
    raise ValueError(f"patch_size={patch_size} must divide the sides of {images.shape[1]}x{images.shape[2]} images")
  return rearrange(images, "b (y p) (x q) c -> b (y x) (p q c)", p=patch_size, q=patch_size)


def normalize_patches(patches: Float[Array, "batch patches pixels"]) -> Float[Array, "batch patches pixels"]:
  """Normalises each patch to mean 0 and variance 1 over its pixels (He et al. 2022, MAE, section 3: the better target).

  The variance is the unbiased one plus 1e-6, as in the authors' code. A patch of one colour becomes zeros.
  """
  x = patches.astype(jnp.float32)
  return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True, ddof=1) + 1e-6)
