"""Convolutions between an image and a grid of vectors: the tower of image tokenizers, and the way back to pixels."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig, check_image_size
from mmjax.nn.dense import Dense
from mmjax.nn.embeddings import windows
from mmjax.nn.mlp import gelu
from mmjax.nn.norm import LayerNorm
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs
from mmjax.types import Encoded

_INIT = nn.initializers.he_normal()


@dataclasses.dataclass(frozen=True)
class ConvGridConfig(TowerConfig):
  """Configuration of a convolutional encoder. Raises ValueError if the fields are inconsistent."""

  image_size: int = 32
  """Side of the square input image in pixels."""
  stages: int = 2
  """Number of convolutions with stride 2. The grid has image_size / 2**stages positions along one side."""
  width: int = 96
  """Channels of the grid. Each stage before has half as many as the next."""
  blocks: int = 1
  """Residual blocks of each stage."""

  def __post_init__(self) -> None:
    if min(self.stages, self.blocks) < 1:
      raise ValueError(f"stages={self.stages} and blocks={self.blocks} must be at least 1")
    if self.image_size % 2**self.stages:
      raise ValueError(f"image_size={self.image_size} must be divisible by 2**stages = {2**self.stages}")
    if self.width % 2 ** (self.stages - 1):
      raise ValueError(f"width={self.width} must be divisible by 2**(stages - 1) = {2 ** (self.stages - 1)}")

  @property
  def grid(self) -> int:
    """Positions along one side of the grid."""
    return self.image_size // 2**self.stages

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of each stage, the largest feature map first."""
    return tuple(self.width // 2 ** (self.stages - 1 - stage) for stage in range(self.stages))

  @property
  def pooled_width(self) -> int:
    return self.width

  def flops(self) -> int:
    total, channels, side = 0, 3, self.image_size
    for width in self.widths:
      side //= 2
      total += 2 * side**2 * 9 * channels * width + self.blocks * 2 * side**2 * 10 * width**2
      channels = width
    return total

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.image_size, self.image_size, 3), jnp.float32)

  def build(self) -> nn.Module:
    return ConvGrid(self)


class ResidualBlock(nn.Module):
  """x + conv1x1(gelu(conv3x3(gelu(norm(x))))), the residual block of VQ-VAE (van den Oord et al. 2017, section 4.1).

  The convolution is shifted slices and one matrix product, so that it uses the fast `Dense`.

  Parameters: norm, conv, projection.
  """

  @nn.compact
  def __call__(self, x: Float[Array, "batch rows columns width"]) -> Float[Array, "batch rows columns width"]:
    width = x.shape[-1]
    y = Dense(width, _INIT, name="conv")(_neighbours(gelu(LayerNorm(name="norm")(x))))
    return x + Dense(width, nn.initializers.lecun_normal(), name="projection")(gelu(y))


class ConvGrid(nn.Module):
  """Model of a ConvGridConfig. Parameters: conv_0, block_0_0, ... for each stage, and norm."""

  config: ConvGridConfig

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None) -> Encoded:
    """One vector for each position of the grid, row by row. `rng` is ignored: nothing is random."""
    c = self.config
    check_image_size(images, c.image_size)
    x = images
    for stage, width in enumerate(c.widths):
      x = Dense(width, _INIT, name=f"conv_{stage}")(windows(x))
      for block in range(c.blocks):
        x = ResidualBlock(name=f"block_{stage}_{block}")(x)
    tokens = rearrange(LayerNorm(name="norm")(x), "b y x w -> b (y x) w")
    mask = jnp.ones(tokens.shape[:2], bool)
    return Encoded(tokens, mask, mean_pool(tokens, mask))


class ConvImage(nn.Module):
  """The reverse of `ConvGrid`: each stage doubles the sides.

  Parameters: block_0_0, conv_up_0, ... for each stage, and norm.

  A position becomes 2x2 positions by a linear layer (sub-pixel convolution, Shi et al. 2016).
  """

  config: ConvGridConfig

  @nn.compact
  def __call__(self, tokens: Float[Array, "batch positions channels"]) -> Float[Array, "batch height width 3"]:
    """Normalised pixels from one vector for each position of the grid, row by row."""
    c = self.config
    x = rearrange(tokens, "b (y x) w -> b y x w", y=c.grid)
    outputs = (*reversed(c.widths[:-1]), 3)
    for stage, width in enumerate(outputs):
      for block in range(c.blocks):
        x = ResidualBlock(name=f"block_{stage}_{block}")(x)
      last = stage == c.stages - 1
      x = gelu(LayerNorm(name="norm")(x)) if last else x
      x = Dense(4 * width, nn.initializers.lecun_normal() if last else _INIT, name=f"conv_up_{stage}")(x)
      x = rearrange(x, "b y x (p q c) -> b (y p) (x q) c", p=2, q=2)
    return x


def _neighbours(x: Float[Array, "batch rows columns width"]) -> Float[Array, "batch rows columns window"]:
  """3x3 windows around each position, concatenated over channels. Zeros surround the grid."""
  rows, columns = x.shape[1:3]
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return jnp.concatenate([padded[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)], axis=-1)
