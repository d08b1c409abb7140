"""CLIP's ResNet: images in, a feature map and one vector per image out (Radford et al. 2021, section 2.4)."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange, reduce
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig, check_image_size
from mmjax.nn.attention import attention
from mmjax.nn.channel_norm import ChannelNorm, ChannelNormKind
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs
from mmjax.types import Encoded

EXPANSION = 4  # output width of a bottleneck divided by its inner width


@dataclasses.dataclass(frozen=True)
class ResNetConfig(TowerConfig):
  """Configuration of CLIP's ResNet. Raises ValueError if the fields are inconsistent."""

  image_size: int = 224
  """Side of the square input image in pixels; must be divisible by 32."""
  layers: tuple[int, int, int, int] = (3, 4, 6, 3)
  """Bottleneck blocks in each of the four stages (RN50: 3 4 6 3)."""
  width: int = 64
  """Channels after the stem. The last stage outputs 32 times as many."""
  num_heads: int = 32
  """Number of heads of the attention pooling; must divide 32 * width."""
  output_dim: int = 1024
  """Width of the pooled vector, which the last linear layer of the pooling outputs."""
  norm: ChannelNormKind = "group"
  """Normalisation after each convolution. "group": group norm (Wu and He 2018), for any batch. "batch": batch norm with
  the statistics of the global batch in training, and their running averages in evaluation (CLIP's training); it needs
  parallel.microbatches=1. "frozen": batch norm with the statistics of published weights, which never change.
  """
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Compute dtype. Parameters and the softmax stay in float32."""

  def __post_init__(self) -> None:
    if self.image_size % 32:
      raise ValueError(f"image_size={self.image_size} must be divisible by 32, the product of the strides")
    if len(self.layers) != 4 or min(self.layers) < 1:
      raise ValueError(f"layers={self.layers} must be four numbers of at least 1")
    if self.width % 2:
      raise ValueError(f"width={self.width} must be even: the stem's first convolutions have half of it")
    if self.features % self.num_heads:
      raise ValueError(f"32 * width = {self.features} must be divisible by num_heads={self.num_heads}")

  @property
  def features(self) -> int:
    """Channels after the last stage."""
    return 32 * self.width

  @property
  def grid(self) -> int:
    """Positions along one side of the feature map."""
    return self.image_size // 32

  @property
  def pooled_width(self) -> int:
    """Width of the pooled vector."""
    return self.output_dim

  @property
  def batch_statistics(self) -> bool:
    """True if the result for an example depends on the other examples of a training batch."""
    return self.norm == "batch"

  def flops(self) -> int:
    side, half = self.image_size // 2, self.width // 2
    total = 2 * side**2 * 9 * (3 * half + half**2 + half * self.width)
    side, width = side // 2, self.width
    for stage, blocks in enumerate(self.layers):
      middle, out = self.width * 2**stage, self.width * 2**stage * EXPANSION
      for block in range(blocks):
        smaller = side // 2 if stage and not block else side
        total += 2 * side**2 * (width * middle + 9 * middle**2) + 2 * smaller**2 * middle * out
        total += 2 * smaller**2 * width * out if not block else 0
        side, width = smaller, out
    length = self.grid**2 + 1
    return total + 4 * length * width**2 + 4 * length * width + 2 * width * (width + self.output_dim)

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.image_size, self.image_size, 3), jnp.float32)

  def build(self) -> nn.Module:
    return ResNet(self)


def _conv(features: int, size: int, name: str, dtype: str, stride: int = 1) -> nn.Conv:
  padding = ((size // 2, size // 2),) * 2
  init = nn.initializers.he_normal()
  kernel = (size, size)
  return nn.Conv(features, kernel, stride, padding, use_bias=False, dtype=dtype, kernel_init=init, name=name)


def _shrink(x: Array, factor: int) -> Array:
  """Mean over squares of `factor` x `factor` pixels.

  All strides except that of the first convolution are average pools of this kind (antialiasing).
  """
  return x if factor == 1 else reduce(x, "b (y p) (x q) c -> b y x c", "mean", p=factor, q=factor)


class Bottleneck(nn.Module):
  """Residual bottleneck block: relu(x + conv1x1(conv3x3(conv1x1(x)))).

  The average pool precedes the last convolution of each branch.

  Attributes:
    width: inner width; the output is `EXPANSION` times as wide.
    stride: factor by which the block reduces the sides.
    norm: normalisation.
    dtype: compute dtype.
  """

  width: int
  stride: int
  norm: ChannelNormKind
  dtype: str

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, training: bool
  ) -> Float[Array, "batch rows columns features"]:
    features = self.width * EXPANSION
    norm = lambda name, y, **init: ChannelNorm(self.norm, name=name, **init)(y, training=training)
    y = nn.relu(norm("norm_1", _conv(self.width, 1, "conv_1", self.dtype)(x)))
    y = nn.relu(norm("norm_2", _conv(self.width, 3, "conv_2", self.dtype)(y)))
    # The last scale is initially 0, so that a block is the identity at first (Goyal et al. 2017; CLIP's code).
    y = _conv(features, 1, "conv_3", self.dtype)(_shrink(y, self.stride))
    y = norm("norm_3", y, scale_init=nn.initializers.zeros)
    if self.stride > 1 or x.shape[-1] != features:
      x = norm("norm_skip", _conv(features, 1, "conv_skip", self.dtype)(_shrink(x, self.stride)))
    return nn.relu(x + y)


class AttentionPool2d(nn.Module):
  """CLIP's attention pooling, with learned positions: the mean token attends to itself and all tokens.

  A linear layer to `output_dim` follows.
  """

  config: ResNetConfig

  @nn.compact
  def __call__(self, places: Float[Array, "batch length width"]) -> Float[Array, "batch dim"]:
    c = self.config
    tokens = jnp.concatenate([places.mean(1, keepdims=True), places], axis=1)
    init = nn.initializers.normal(c.features**-0.5)
    shape = (c.grid**2 + 1, c.features)
    tokens = tokens + self.param("position_embedding", init, shape, jnp.float32)[None].astype(tokens.dtype)

    def heads(name: str, x: Array) -> Array:
      return rearrange(Dense(c.features, init, dtype=c.dtype, name=name)(x), "b l (h d) -> b l h d", h=c.num_heads)

    pooled = attention(heads("query", tokens[:, :1]), heads("key", tokens), heads("value", tokens))
    return Dense(c.output_dim, init, dtype=c.dtype, name="out")(rearrange(pooled, "b 1 h d -> b (h d)"))


class ResNet(nn.Module):
  """CLIP's ResNet. Maps normalised images [batch, image_size, image_size, 3] to `Encoded`.

  The tokens are the positions of the last feature map.
  """

  config: ResNetConfig

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None) -> Encoded:
    """Encodes images.

    Args:
      images: normalised images.
      rng: one key per example in training; None: evaluation. The network has no randomness: this only selects the
        statistics of norm="batch".
    """
    c, training = self.config, rng is not None
    check_image_size(images, c.image_size)
    x = images.astype(c.dtype)
    for i, features in enumerate((c.width // 2, c.width // 2, c.width), 1):
      x = _conv(features, 3, f"conv_{i}", c.dtype, stride=2 if i == 1 else 1)(x)
      x = nn.relu(ChannelNorm(c.norm, name=f"norm_{i}")(x, training=training))
    x = _shrink(x, 2)
    for stage, blocks in enumerate(c.layers, 1):
      for block in range(blocks):
        stride = 2 if stage > 1 and block == 0 else 1
        name = f"stage_{stage}_block_{block}"
        x = Bottleneck(c.width * 2 ** (stage - 1), stride, c.norm, c.dtype, name=name)(x, training=training)
    tokens = rearrange(x, "b y x d -> b (y x) d")
    pooled = AttentionPool2d(c, name="attention_pool")(tokens)
    return Encoded(tokens, jnp.ones(tokens.shape[:2], bool), pooled)
