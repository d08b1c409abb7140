"""The ResNet of He et al. (2016): images in, a feature map and its mean out. CLIP's variant is in resnet.py."""

import dataclasses
from collections.abc import Iterator
from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig, check_image_size
from mmjax.nn.channel_norm import ChannelNorm, ChannelNormKind
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs
from mmjax.types import Encoded

REDUCTION = 4  # output width of a bottleneck divided by its inner width
Block = Literal["bottleneck", "basic"]


class _Layer(NamedTuple):
  """A convolution of a block: channels of the output, side of the kernel, stride."""

  features: int
  kernel: int
  stride: int


@dataclasses.dataclass(frozen=True)
class ClassicResNetConfig(TowerConfig):
  """Configuration of a ResNet. Raises ValueError if the fields are inconsistent."""

  image_size: int = 224
  """Side of the square input image in pixels."""
  width: int = 64
  """Channels after the first convolution."""
  layers: tuple[int, ...] = (3, 4, 6, 3)
  """Blocks in each stage (He et al. 2016, table 1: ResNet-50; ResNet-101: 3 4 23 3)."""
  widths: tuple[int, ...] = (256, 512, 1024, 2048)
  """Channels that each stage outputs (ResNet-18 and ResNet-34: 64 128 256 512)."""
  block: Block = "bottleneck"
  """"bottleneck": 1x1, 3x3 and 1x1 convolutions (ResNet-50 and deeper). "basic": two 3x3 convolutions."""
  first_stride: bool = False
  """Halve the sides of the feature map in the first stage too."""
  early_stride: bool = False
  """Put the stride of a bottleneck into its first convolution (He et al. 2016), not into the 3x3 (most weights)."""
  norm: ChannelNormKind = "group"
  """Normalisation after each convolution. "group": group norm (Wu and He 2018), for any batch. "batch": batch norm with
  the statistics of the global batch in training, and their running averages in evaluation (the paper's training); it
  needs parallel.microbatches=1. "frozen": batch norm with the statistics of published weights, which never change.
  """
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Compute dtype. Parameters and statistics stay in float32."""

  def __post_init__(self) -> None:
    if not self.layers or len(self.layers) != len(self.widths) or min(*self.layers, *self.widths) < 1:
      raise ValueError(f"layers={self.layers} and widths={self.widths} must be as many numbers of at least 1")
    if self.block == "bottleneck" and any(width % REDUCTION for width in self.widths):
      raise ValueError(f"widths={self.widths} must be divisible by {REDUCTION}, for the inner width of a bottleneck")
    if self.image_size < self.stride:
      raise ValueError(f"image_size={self.image_size} must be at least {self.stride}, the product of the strides")

  @property
  def stride(self) -> int:
    """Side of the square of pixels that one position of the last feature map stands for."""
    return 2 ** (len(self.layers) + 1 + self.first_stride)

  @property
  def grid(self) -> int:
    """Positions along one side of the last feature map."""
    return -(-self.image_size // self.stride)

  @property
  def pooled_width(self) -> int:
    """Width of the pooled vector."""
    return self.widths[-1]

  @property
  def batch_statistics(self) -> bool:
    """True if the result for an example depends on the other examples of a training batch."""
    return self.norm == "batch"

  def blocks(self) -> Iterator[tuple[str, tuple[_Layer, ...]]]:
    """Name and convolutions of each block."""
    for stage, (count, features) in enumerate(zip(self.layers, self.widths, strict=True)):
      for block in range(count):
        stride = 2 if block == 0 and (stage or self.first_stride) else 1
        yield f"stage_{stage}_block_{block}", self._convolutions(features, stride)

  def _convolutions(self, width: int, stride: int) -> tuple[_Layer, ...]:
    if self.block == "basic":
      return _Layer(width, 3, stride), _Layer(width, 3, 1)
    inner, early = width // REDUCTION, self.early_stride
    first, second = (stride, 1) if early else (1, stride)
    return _Layer(inner, 1, first), _Layer(inner, 3, second), _Layer(width, 1, 1)

  def flops(self) -> int:
    side, width = -(-self.image_size // 2), self.width
    total = side**2 * 3 * 7**2 * width
    side = -(-side // 2)
    for _, layers in self.blocks():
      before, entered = side, width
      for layer in layers:
        side = -(-side // layer.stride)
        total += side**2 * layer.kernel**2 * width * layer.features
        width = layer.features
      total += side**2 * entered * width if (side, width) != (before, entered) else 0
    return 2 * total

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.image_size, self.image_size, 3), jnp.float32)

  def build(self) -> nn.Module:
    return ClassicResNet(self)


def _conv(c: ClassicResNetConfig, layer: _Layer, name: str) -> nn.Conv:
  sides = ((layer.kernel // 2,) * 2,) * 2
  kernel, init = (layer.kernel,) * 2, nn.initializers.variance_scaling(2.0, "fan_out", "normal")
  return nn.Conv(
    layer.features, kernel, layer.stride, sides, use_bias=False, dtype=c.dtype, kernel_init=init, name=name
  )


class ResidualBlock(nn.Module):
  """relu(x + convolutions(x)), with a norm after each convolution and ReLU between them.

  Parameters: conv_I and norm_I for each convolution; conv_skip and norm_skip, if width or sides change.

  Attributes:
    config: configuration of the network.
    layers: the convolutions.
  """

  config: ClassicResNetConfig
  layers: tuple[_Layer, ...]

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, training: bool
  ) -> Float[Array, "batch rows columns features"]:
    y, last = x, len(self.layers) - 1
    for place, layer in enumerate(self.layers):
      # The last scale is initially 0, so that a block is the identity at first (Goyal et al. 2017).
      first = nn.initializers.zeros if place == last else nn.initializers.ones
      y = _conv(self.config, layer, f"conv_{place}")(y)
      y = ChannelNorm(self.config.norm, scale_init=first, name=f"norm_{place}")(y, training=training)
      y = y if place == last else nn.relu(y)
    if y.shape != x.shape:
      stride = max(layer.stride for layer in self.layers)
      x = _conv(self.config, _Layer(y.shape[-1], 1, stride), "conv_skip")(x)
      x = ChannelNorm(self.config.norm, name="norm_skip")(x, training=training)
    return nn.relu(x + y)


class ClassicResNet(nn.Module):
  """ResNet. Maps normalised images [batch, image_size, image_size, 3] to `Encoded`.

  The tokens are the positions of the last feature map, and the pooled vector is their mean.
  """

  config: ClassicResNetConfig

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None) -> Encoded:
    """Encodes images.

    Args:
      images: normalised images.
      rng: one key per example in training; None: evaluation. The network has no randomness: this only selects the
        statistics of norm="batch".
    Raises:
      ValueError: the images do not have the size image_size.
    """
    c, training = self.config, rng is not None
    check_image_size(images, c.image_size)
    x = _conv(c, _Layer(c.width, 7, 2), "stem_conv")(images.astype(c.dtype))
    x = nn.relu(ChannelNorm(c.norm, name="stem_norm")(x, training=training))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    for name, layers in c.blocks():
      x = ResidualBlock(c, layers, name=name)(x, training=training)
    tokens = rearrange(x, "b y x d -> b (y x) d")
    mask = jnp.ones(tokens.shape[:2], bool)
    return Encoded(tokens, mask, mean_pool(tokens, mask))

  @nn.jit
  def encode_image(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch dim"]:
    """Image embeddings of an image encoder without a text encoder: the pooled vectors, in float32."""
    return self(images).pooled.astype(jnp.float32)
