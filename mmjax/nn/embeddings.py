"""Patch embeddings and position embeddings."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.nn.channel_norm import ChannelNorm, ChannelNormKind
from mmjax.nn.dense import Dense, Initializer
from mmjax.nn.mlp import gelu
from mmjax.nn.norm import LayerNorm


class PatchEmbed(nn.Module):
  """Cuts an image into square patches and projects each patch; a strided convolution written as a matmul.

  Attributes:
    width: width of the tokens.
    patch_size: side of a patch in pixels; must divide the image's sides.
    dtype: compute dtype.
    use_bias: if True, the projection has a bias.
    kernel_init, bias_init: initialisers of the projection.
  """

  width: int
  patch_size: int
  dtype: str
  use_bias: bool = True
  kernel_init: Initializer = nn.initializers.lecun_normal()
  bias_init: Initializer = nn.initializers.zeros

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns dim"]:
    x = _squares(images, self.patch_size)
    return Dense(
      self.width,
      self.kernel_init,
      use_bias=self.use_bias,
      dtype=self.dtype,
      bias_init=self.bias_init,
      name="projection",
    )(x)


def windows(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns patch"]:
  """3x3 windows of a convolution with stride 2 and padding 1, concatenated over channels: [b, h/2, w/2, 9c]."""
  h, w = x.shape[1], x.shape[2]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return jnp.concatenate([padded[:, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)], axis=-1)


def stem_widths(width: int, patch_size: int) -> list[int]:
  """Channels after each of the log2(patch_size) convolutions of a stem.

  They double up to half of `width`, and are at least 8.
  """
  count = patch_size.bit_length() - 1
  return [max(8, width // 2 ** (count - i)) for i in range(count)]


class ConvStem(nn.Module):
  """3x3 convolutions with stride 2 and a linear layer, in place of a patch embedding (Xiao et al. 2021).

  Each convolution halves the sides and doubles the channels. Layer norm and GELU follow it. Convolutions are written as
  shifted slices and one matmul, so that they use the fast `Dense`.

  Attributes:
    width: width of the tokens.
    patch_size: product of the strides; a power of two.
    dtype: compute dtype.
    epsilon: added to the variance in the norms.
  """

  width: int
  patch_size: int
  dtype: str
  epsilon: float

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns dim"]:
    x = images.astype(self.dtype)
    for i, features in enumerate(stem_widths(self.width, self.patch_size)):
      x = Dense(features, nn.initializers.he_normal(), dtype=self.dtype, name=f"conv_{i}")(windows(x))
      x = gelu(LayerNorm(self.epsilon, name=f"norm_{i}")(x))
    return Dense(self.width, nn.initializers.lecun_normal(), dtype=self.dtype, name="projection")(x)


class NestedStem(nn.Module):
  """Patches of 4x4 pixels, then of 2x2 places, then of 2x2 places again, each projected (MobileCLIP, Vasu et al. 2024).

  These are convolutions whose stride is the size of their kernel, 16 pixels in all. Normalisation and GELU follow the
  first two, which have a quarter of the width.

  Attributes:
    width: width of the tokens; must be divisible by 4.
    norm: normalisation.
    dtype: compute dtype.
  """

  width: int
  norm: ChannelNormKind
  dtype: str

  @nn.compact
  def __call__(
    self, images: Float[Array, "batch height width channels"], *, training: bool
  ) -> Float[Array, "batch rows columns dim"]:
    x, init = images.astype(self.dtype), nn.initializers.he_normal()
    for i, side in enumerate((4, 2)):
      y = Dense(self.width // 4, init, use_bias=False, dtype=self.dtype, name=f"conv_{i}")(_squares(x, side))
      x = gelu(ChannelNorm(self.norm, name=f"norm_{i}")(y, training=training))
    return Dense(self.width, nn.initializers.lecun_normal(), dtype=self.dtype, name="projection")(_squares(x, 2))


def _squares(x: Float[Array, "batch height width channels"], side: int) -> Float[Array, "batch rows columns square"]:
  return rearrange(x, "b (y p) (x q) c -> b y x (p q c)", p=side, q=side)


def resampled_positions(
  positions: Float[Array, "grid grid width"], places: Float[Array, "batch length 2"]
) -> Float[Array, "batch length width"]:
  """Resamples the position embeddings of a square grid to the shapes of images: bilinear, with antialiasing.

  The filter is that of torch.nn.functional.interpolate(mode="bilinear", antialias=True), which SigLIP 2 uses. It is one
  matrix product for images of different shapes.

  Args:
    positions: embeddings of the square grid.
    places: row and column of each patch in its image. Negative for padding, whose embedding has no meaning.
  Returns: one embedding per patch.
  """
  grid, width = positions.shape[0], positions.shape[-1]
  count = jnp.maximum(places.max(axis=1), 0.0) + 1.0  # rows and columns of each image
  step = grid / count[:, None, :, None]
  cells = jnp.arange(grid, dtype=jnp.float32)[None, None, None] + 0.5
  away = cells - (places[..., None] + 0.5) * step
  weights = jnp.maximum(1.0 - jnp.abs(away) / jnp.maximum(step, 1.0), 0.0)
  weights = weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-6)
  both = weights[:, :, 0, :, None] * weights[:, :, 1, None, :]
  flat = rearrange(both, "b n i j -> (b n) (i j)")
  mixed = jnp.matmul(flat, positions.reshape(grid * grid, width), precision=jax.lax.Precision.HIGHEST)
  return rearrange(mixed, "(b n) d -> b n d", b=places.shape[0])


def sincos_2d(rows: int, columns: int, width: int, *, temperature: float = 10_000.0) -> Float[Array, "patches width"]:
  """Fixed two-dimensional position embeddings (MoCo v3): sin x, cos x, sin y, cos y at width / 4 frequencies each.

  Args:
    rows: rows of the patch grid.
    columns: columns of the patch grid.
    width: width of an embedding; must be divisible by 4.
    temperature: frequencies fall geometrically from 1 to 1 / temperature.
  Returns: one embedding per patch, row by row.
  Raises:
    ValueError: width is not divisible by 4.

  Example:
    >>> from mmjax.nn import sincos_2d
    >>> sincos_2d(2, 3, 8).shape
    (6, 8)
  """
  if width % 4:
    raise ValueError(f'width={width} must be divisible by 4 for positions="sincos2d"')
  y, x = np.mgrid[:rows, :columns]
  omega = 1.0 / temperature ** (np.arange(width // 4) / max(1, width // 4 - 1))
  y, x = y.reshape(-1, 1) * omega[None], x.reshape(-1, 1) * omega[None]
  return jnp.asarray(np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1), jnp.float32)


def sines_and_cosines(length: int, width: int) -> Float[Array, "length width"]:
  """Fixed position embeddings in the order of tensor2tensor and fairseq: all sines, then all cosines.

  Args:
    length: number of positions t = 0, 1, ...
    width: width of an embedding; must be even. Its width / 2 frequencies fall geometrically from 1 to 1/10000.
  """
  steps = np.arange(width // 2, dtype=np.float32) * np.float32(-np.log(10_000.0) / (width // 2 - 1))
  angle = np.arange(length, dtype=np.float32)[:, None] * np.exp(steps)[None]  # float32, as in the published models
  return jnp.asarray(np.concatenate([np.sin(angle), np.cos(angle)], axis=1))


def sincos_1d(length: int, width: int) -> Float[Array, "length width"]:
  """Fixed position embeddings (Vaswani et al. 2017, section 3.5).

  Column 2i is sin(t / 10000^(2i / width)), column 2i + 1 the cosine.

  Args:
    length: number of positions t = 0, 1, ...
    width: width of an embedding; must be even.
  Raises:
    ValueError: width is odd.

  Example:
    >>> from mmjax.nn import sincos_1d
    >>> sincos_1d(3, 4).shape
    (3, 4)
  """
  if width % 2:
    raise ValueError(f'width={width} must be even for positions="sinusoidal"')
  angle = np.arange(length)[:, None] / 10_000.0 ** (np.arange(0, width, 2) / width)[None]
  return jnp.asarray(np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(length, width), jnp.float32)
