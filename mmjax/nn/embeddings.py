"""From pixels and positions to token vectors."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.nn.dense import Dense
from mmjax.nn.mlp import gelu
from mmjax.nn.norm import LayerNorm


class PatchEmbed(nn.Module):
  """Cuts an image into square patches and projects each: a strided convolution written as a matmul.

  Attributes:
    width: of the tokens.
    patch_size: side of a patch in pixels; must divide the image's sides.
    dtype: compute dtype.
    use_bias: whether the projection has a bias.
  """

  width: int
  patch_size: int
  dtype: str
  use_bias: bool = True

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns dim"]:
    p = self.patch_size
    patches = rearrange(images, "b (y p) (x q) c -> b y x (p q c)", p=p, q=p)
    init = nn.initializers.lecun_normal()
    return Dense(self.width, init, use_bias=self.use_bias, dtype=self.dtype, name="projection")(patches)


def windows(x: Float[Array, "batch height width channels"]) -> Float[Array, "batch rows columns patch"]:
  """The 3x3 windows of a convolution with stride 2 and padding 1, side by side: [b, h/2, w/2, 9c]."""
  h, w = x.shape[1], x.shape[2]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return jnp.concatenate([padded[:, i : i + h : 2, j : j + w : 2] for i in range(3) for j in range(3)], axis=-1)


def stem_widths(width: int, patch_size: int) -> list[int]:
  """Channels after each of a convolutional stem's log2(patch_size) convolutions: they double, up to half the width."""
  count = patch_size.bit_length() - 1
  return [max(8, width // 2 ** (count - i)) for i in range(count)]


class ConvStem(nn.Module):
  """3x3 convolutions with stride 2, then a linear layer, instead of a patch embedding (Xiao et al. 2021).

  Each convolution halves the sides and doubles the channels; layer norm and GELU follow. It
  is written as shifted slices and one matmul, so that it uses the same fast `Dense` as everything else.

  Attributes:
    width: of the tokens.
    patch_size: product of the strides, a power of two.
    dtype: compute dtype.
    epsilon: of the norms.
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


def sincos_2d(rows: int, columns: int, width: int, *, temperature: float = 10_000.0) -> Float[Array, "patches width"]:
  """Fixed two-dimensional positions: sin x, cos x, sin y, cos y at width / 4 frequencies each (MoCo v3's).

  Raises: ValueError where four does not divide the width.
  """
  if width % 4:
    raise ValueError(f'width={width} must be divisible by 4 for positions="sincos2d"')
  y, x = np.mgrid[:rows, :columns]
  omega = 1.0 / temperature ** (np.arange(width // 4) / max(1, width // 4 - 1))
  y, x = y.reshape(-1, 1) * omega[None], x.reshape(-1, 1) * omega[None]
  return jnp.asarray(np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1), jnp.float32)
