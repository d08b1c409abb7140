"""EfficientNet and EfficientNet-Lite: images in, a feature map and its mean out (Tan and Le 2019; Liu 2020)."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig, check_image_size
from mmjax.nn.channel_norm import ChannelNorm, ChannelNormKind
from mmjax.nn.dense import Dense
from mmjax.nn.mlp import silu
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs, drop_path, fold_in
from mmjax.types import Encoded

STEM, HEAD = 32, 1280  # channels of the first and the last convolution at width 1
_SQUEEZED = 4  # channels of a block's input divided by those of its squeeze
_EPSILON = 1e-3  # added to the variance in batch norm


class Stage(NamedTuple):
  """A stage of equal blocks, at width and depth 1 (Tan and Le 2019, table 1).

  Attributes:
    expansion: channels within a block divided by those of its input.
    width: channels of the output.
    blocks: number of blocks.
    stride: stride of the first block.
    kernel: side of the depthwise kernel.
  """

  expansion: int
  width: int
  blocks: int
  stride: int
  kernel: int


STAGES = (
  Stage(1, 16, 1, 1, 3),
  Stage(6, 24, 2, 2, 3),
  Stage(6, 40, 2, 2, 5),
  Stage(6, 80, 3, 2, 3),
  Stage(6, 112, 3, 1, 5),
  Stage(6, 192, 4, 2, 5),
  Stage(6, 320, 1, 1, 3),
)


@dataclasses.dataclass(frozen=True)
class EfficientNetConfig(TowerConfig):
  """Configuration of an EfficientNet. Raises ValueError if the fields are inconsistent."""

  image_size: int = 224
  """Side of the square input image in pixels (Lite0 to Lite4: 224, 240, 260, 280, 300)."""
  width: float = 1.0
  """Factor of the channels of each stage, which are rounded to multiples of 8 (Lite0 to Lite4: 1, 1, 1.1, 1.2, 1.4)."""
  depth: float = 1.0
  """Factor of the blocks of the inner stages, rounded up (Lite0 to Lite4: 1, 1.1, 1.2, 1.4, 1.8)."""
  norm: ChannelNormKind = "group"
  """Normalisation. "group": group norm (Wu and He 2018), for any batch. "batch": batch norm with the statistics of the
  global batch in training, and their running averages in evaluation (EfficientNet's training); it needs
  parallel.microbatches=1. "frozen": batch norm with the statistics of published weights, which never change.
  """
  lite: bool = True
  """EfficientNet-Lite: no squeeze and excitation, ReLU6, and stem, head, first and last stage have one size. False:
  EfficientNet itself, with squeeze and excitation and SiLU, all of which grows with width and depth."""
  centered: tuple[int, ...] = ()
  """Numbers of the halving blocks whose kernels are centred on the first place, without `lite`. The kernels of the
  others, and of the stem, are centred on the second place, as TensorFlow does it for maps with even sides."""
  head: bool = True
  """Apply the last convolution. False: the last stage is the map (ALIGN, Jia et al. 2021)."""
  drop_path: float = 0.0
  """Probability of dropping the branch of the last block (EfficientNet: 0.2). It rises linearly from 0 in the first."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Compute dtype. Parameters and statistics stay in float32."""

  def __post_init__(self) -> None:
    if self.image_size < 32:
      raise ValueError(f"image_size={self.image_size} must be at least 32, the product of the strides")
    if self.width <= 0 or self.depth <= 0:
      raise ValueError(f"width={self.width} and depth={self.depth} must be positive factors")
    if self.centered and self.lite:
      raise ValueError(f"centered={self.centered} needs lite=False: a Lite network pads by the side of the map")
    if not 0.0 <= self.drop_path < 1.0:
      raise ValueError(f"drop_path={self.drop_path} must lie in [0, 1)")

  @property
  def stages(self) -> tuple[Stage, ...]:
    """The stages with this network's channels and numbers of blocks. Lite's first and last one keep their blocks."""
    inner = (0, len(STAGES) - 1) if self.lite else ()
    return tuple(
      stage._replace(
        width=_rounded(stage.width * self.width),
        blocks=stage.blocks if place in inner else math.ceil(stage.blocks * self.depth),
      )
      for place, stage in enumerate(STAGES)
    )

  @property
  def grid(self) -> int:
    """Positions along one side of the last feature map."""
    return self.sides[-1]

  @property
  def sides(self) -> tuple[int, ...]:
    """Sides of the maps: after the stem, and after each block."""
    sides = [-(-self.image_size // 2) if self.lite else self.image_size // 2]
    for stage in self.stages:
      for block in range(stage.blocks):
        stride = stage.stride if block == 0 else 1
        up = self.lite or len(sides) - 1 in self.centered
        sides.append(-(-sides[-1] // stride) if up else sides[-1] // stride)
    return tuple(sides)

  @property
  def pooled_width(self) -> int:
    """Width of the pooled vector."""
    return self.head_width if self.head else self.stages[-1].width

  @property
  def stem_width(self) -> int:
    """Channels of the first convolution."""
    return STEM if self.lite else _rounded(STEM * self.width)

  @property
  def head_width(self) -> int:
    """Channels of the last convolution."""
    return HEAD if self.lite else _rounded(HEAD * self.width)

  @property
  def batch_statistics(self) -> bool:
    """True if the result for an example depends on the other examples of a training batch."""
    return self.norm == "batch"

  def flops(self) -> int:
    return 2 * sum(self._multiplications())

  def _multiplications(self) -> Iterator[int]:
    """Multiply-adds of the convolutions."""
    sides, width = iter(self.sides), self.stem_width
    side = next(sides)
    yield side**2 * 27 * width
    for stage in self.stages:
      for _ in range(stage.blocks):
        inner, before = stage.expansion * width, side
        side = next(sides)
        yield before**2 * width * inner if stage.expansion > 1 else 0
        yield side**2 * inner * (stage.kernel**2 + stage.width)
        yield 0 if self.lite else 2 * inner * _squeeze_width(width)
        width = stage.width
    yield side**2 * width * self.head_width if self.head else 0

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.image_size, self.image_size, 3), jnp.float32)

  def build(self) -> nn.Module:
    return EfficientNet(self)


def _rounded(width: float) -> int:
  """The nearest multiple of 8, but at least 8 and not below nine tenths of `width`."""
  nearest = max(8, int(width + 4) // 8 * 8)
  return nearest + 8 if nearest < 0.9 * width else nearest


def _squeeze_width(width: int) -> int:
  """Channels of the squeeze of a block whose input has `width` channels."""
  return max(1, width // _SQUEEZED)


class ConvNorm(nn.Module):
  """Convolution without bias, which keeps the sides but for its stride, and normalisation.

  Attributes:
    features: channels of the output.
    kernel: side of the kernel.
    norm: normalisation.
    dtype: compute dtype.
    stride: stride.
    depthwise: if True, each channel has a kernel of its own.
    before: places that are padded before the map; after it, they are half a kernel. None: as TensorFlow's SAME.
  """

  features: int
  kernel: int
  norm: ChannelNormKind
  dtype: str
  stride: int = 1
  depthwise: bool = False
  before: int | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, training: bool
  ) -> Float[Array, "batch rows columns features"]:
    x = nn.Conv(
      self.features,
      (self.kernel, self.kernel),
      self.stride,
      "SAME" if self.before is None else ((self.before, self.kernel // 2),) * 2,
      feature_group_count=self.features if self.depthwise else 1,
      use_bias=False,
      dtype=self.dtype,
      kernel_init=nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal"),
      name="conv",
    )(x)
    return ChannelNorm(self.norm, epsilon=_EPSILON, name="norm")(x, training=training)


def _activation(lite: bool) -> Callable[[Array], Array]:
  return jax.nn.relu6 if lite else silu


class Squeeze(nn.Module):
  """Squeeze and excitation: factors of the channels, from their means over the map (Hu et al. 2018).

  Parameters: up_projection and down_projection, of the layers to `hidden` channels and back.
  """

  hidden: int
  dtype: str

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
    init = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
    layer = functools.partial(Dense, kernel_init=init, dtype=self.dtype)
    mean = x.astype(jnp.float32).mean((1, 2)).astype(x.dtype)
    factors = layer(x.shape[-1], name="down_projection")(silu(layer(self.hidden, name="up_projection")(mean)))
    return x * jax.nn.sigmoid(factors)[:, None, None]


class InvertedBottleneck(nn.Module):
  """Residual block of MobileNetV2: a wider depthwise convolution between two 1x1 convolutions (Sandler et al. 2018).

  Attributes:
    stage: the stage of the block, with the stride of this block.
    rate: probability of dropping the branch.
    norm: normalisation.
    dtype: compute dtype.
    lite: if False, squeeze and excitation follows the depthwise convolution, and SiLU is the activation.
    before: see `ConvNorm`, of a halving block.
  """

  stage: Stage
  rate: float
  norm: ChannelNormKind
  dtype: str
  lite: bool = True
  before: int | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, rng: Rngs
  ) -> Float[Array, "batch rows columns features"]:
    s, shared, training = self.stage, (self.norm, self.dtype), rng is not None
    inner, y, activation = s.expansion * x.shape[-1], x, _activation(self.lite)
    if s.expansion > 1:
      y = activation(ConvNorm(inner, 1, *shared, name="expand")(y, training=training))
    depthwise = ConvNorm(
      inner, s.kernel, *shared, stride=s.stride, depthwise=True, before=self.before, name="depthwise"
    )
    y = activation(depthwise(y, training=training))
    if not self.lite:
      y = Squeeze(_squeeze_width(x.shape[-1]), self.dtype, name="squeeze")(y)
    y = ConvNorm(s.width, 1, *shared, name="project")(y, training=training)
    if y.shape != x.shape:
      return y
    return x + (drop_path(y, rate=self.rate, rng=rng) if self.rate else y)


class EfficientNet(nn.Module):
  """EfficientNet. Maps normalised images [batch, image_size, image_size, 3] to `Encoded`.

  The tokens are the positions of the last feature map, and the pooled vector is their mean.
  """

  config: EfficientNetConfig

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None) -> Encoded:
    """Encodes images.

    Args:
      images: normalised images.
      rng: one key per example for stochastic depth, in training; None: evaluation.
    Raises:
      ValueError: the images do not have the size image_size.
    """
    c, training = self.config, rng is not None
    check_image_size(images, c.image_size)
    shared = (c.norm, c.dtype)
    activation, before = _activation(c.lite), None if c.lite else 0
    stem = ConvNorm(c.stem_width, 3, *shared, stride=2, before=before, name="stem")
    x, number = activation(stem(images.astype(c.dtype), training=training)), 0
    last = max(1, sum(stage.blocks for stage in c.stages) - 1)
    for stage in c.stages:
      for block in range(stage.blocks):
        made = stage if block == 0 else stage._replace(stride=1)
        before = None
        if not c.lite and made.stride > 1:
          before = made.kernel // 2 - (number not in c.centered)
        rate = c.drop_path * number / last
        layer = InvertedBottleneck(made, rate, *shared, c.lite, before, name=f"block_{number}")
        x, number = layer(x, rng=fold_in(rng, number)), number + 1
    if c.head:
      x = activation(ConvNorm(c.head_width, 1, *shared, name="head")(x, training=training))
    tokens = rearrange(x, "b y x d -> b (y x) d")
    mask = jnp.ones(tokens.shape[:2], bool)
    return Encoded(tokens, mask, mean_pool(tokens, mask))

  @nn.jit
  def encode_image(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch dim"]:
    """Image embeddings of an image encoder without a text encoder: the pooled vectors, in float32."""
    return self(images).pooled.astype(jnp.float32)
