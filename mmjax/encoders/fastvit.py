"""FastViT (Vasu et al. 2023): images in, a feature map and its mean out. MobileCLIP's towers (Vasu et al. 2024)."""

import dataclasses
from collections.abc import Iterator
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig, check_image_size
from mmjax.encoders.fastvit_blocks import HEAD_WIDTH, AttentionBlock, Branches, RepMixerBlock, SqueezeExcite
from mmjax.nn.channel_norm import ChannelNormKind
from mmjax.nn.mlp import gelu
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class FastViTConfig(TowerConfig):
  """Configuration of a FastViT. Raises ValueError if the fields are inconsistent."""

  image_size: int = 256
  """Side of the square input image in pixels; must be divisible by 32, with five stages by 64."""
  layers: tuple[int, ...] = (2, 6, 10, 2)
  """Blocks in each stage (MCi0: 2 6 10 2; MCi1: 4 12 20 4; MCi2: 4 12 24 4; MCi3: 2 12 24 4 2; MCi4: 2 12 24 4 4)."""
  width: int = 64
  """Channels of the first stage. Each further stage has twice as many; the output has twice those of the last one."""
  expansion: int = 3
  """Hidden width of a block's MLP divided by the block's width (MCi3 and MCi4: 4)."""
  attention_stages: int = 1
  """Number of stages, the last ones, that mix positions by self-attention, not by convolutions (MCi3 and MCi4: 2)."""
  attention_norm: Literal["channel", "layer"] = "channel"
  """Normalisation before self-attention. "channel": `norm`, as elsewhere. "layer": layer norm (MCi3 and MCi4)."""
  squeeze_excite: bool = True
  """Weight the channels of the last two downsamplings by squeeze-and-excitation (Hu et al. 2018; MCi3 and MCi4: no)."""
  stem_scale: bool = True
  """Add a branch of 1x1 convolutions to the 3x3 convolutions of the stem (MCi3 and MCi4: no)."""
  norm: ChannelNormKind = "group"
  """Normalisation of each branch. "group": group norm (Wu and He 2018), for any batch. "batch": batch norm with the
  statistics of the global batch in training, and their running averages in evaluation (MobileCLIP's training); it needs
  parallel.microbatches=1. "frozen": batch norm with the statistics of published weights, which never change.
  """
  drop_path: float = 0.0
  """Probability of dropping a branch of the last block (stochastic depth). It rises linearly from 0 in the first."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Compute dtype. Parameters, statistics and the softmax stay in float32."""

  def __post_init__(self) -> None:
    if len(self.layers) not in (4, 5) or min(self.layers) < 1:
      raise ValueError(f"layers={self.layers} must be four or five numbers of at least 1")
    if self.image_size % self.stride:
      raise ValueError(f"image_size={self.image_size} must be divisible by {self.stride}, the product of the strides")
    if not 0 <= self.attention_stages <= len(self.layers):
      raise ValueError(f"attention_stages={self.attention_stages} must lie between 0 and the {len(self.layers)} stages")
    narrowest = self.widths[-self.attention_stages] if self.attention_stages else HEAD_WIDTH
    if narrowest % HEAD_WIDTH:
      raise ValueError(f"width={self.width}: stages with attention must be a multiple of {HEAD_WIDTH} channels wide")
    if not 0.0 <= self.drop_path < 1.0:
      raise ValueError(f"drop_path={self.drop_path} must lie in [0, 1)")

  @property
  def widths(self) -> tuple[int, ...]:
    """Channels of each stage."""
    return tuple(self.width * 2**stage for stage in range(len(self.layers)))

  @property
  def stride(self) -> int:
    """Side of the square of pixels that one position of the last feature map stands for."""
    return 4 * 2 ** (len(self.layers) - 1)

  @property
  def grid(self) -> int:
    """Positions along one side of the last feature map."""
    return self.image_size // self.stride

  @property
  def pooled_width(self) -> int:
    """Width of the pooled vector."""
    return 2 * self.widths[-1]

  @property
  def batch_statistics(self) -> bool:
    """True if the result for an example depends on the other examples of a training batch."""
    return self.norm == "batch"

  def has_attention(self, stage: int) -> bool:
    """True if the blocks of a stage, counted from 0, have self-attention."""
    return stage >= len(self.layers) - self.attention_stages

  def has_squeeze(self, stage: int) -> bool:
    """True if the downsampling to a stage, counted from 0, has squeeze-and-excitation."""
    return self.squeeze_excite and stage >= len(self.layers) - 2

  def flops(self) -> int:
    return 2 * sum(self._multiplications())

  def _multiplications(self) -> Iterator[int]:
    """Multiply-adds of the parts. Squeeze-and-excitation, with few positions, is left out."""
    first = 9 + self.stem_scale  # weights of a 3x3 kernel and of a 1x1 kernel
    places, w = (self.image_size // 2) ** 2, self.width
    yield places * first * 3 * w + places // 4 * (first * w + w**2)
    for stage, (w, blocks) in enumerate(zip(self.widths, self.layers, strict=True)):
      places = (self.image_size // 4 >> stage) ** 2
      if stage:
        yield places * ((49 + 9) * w + w**2)
      mixer = 10 * w
      if self.has_attention(stage):
        yield places * 49 * w
        mixer = 4 * w**2 + 2 * places * w
      yield blocks * places * (mixer + 49 * w + 2 * self.expansion * w**2)
    yield places * 10 * 2 * w

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.image_size, self.image_size, 3), jnp.float32)

  def build(self) -> nn.Module:
    return FastViT(self)


class Downsample(nn.Module):
  """Depthwise 7x7 convolution with stride 2 that doubles the channels, and a 1x1 convolution.

  Attributes:
    features: channels of the output.
    squeeze: if True, squeeze-and-excitation follows the depthwise convolution.
    norm: normalisation.
    dtype: compute dtype.
  """

  features: int
  squeeze: bool
  norm: ChannelNormKind
  dtype: str

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, training: bool
  ) -> Float[Array, "batch rows columns features"]:
    shared = (self.norm, self.dtype)
    x = Branches(self.features, (7, 3), *shared, stride=2, depthwise=True, name="large")(x, training=training)
    if self.squeeze:
      x = SqueezeExcite(max(8, (self.features // 4 + 4) // 8 * 8), self.dtype, name="squeeze_excite")(x)
    x = Branches(self.features, (1,), *shared, skip=True, name="pointwise")(gelu(x), training=training)
    return gelu(x)


class FastViT(nn.Module):
  """FastViT. Maps normalised images [batch, image_size, image_size, 3] to `Encoded`.

  The tokens are the positions of the last feature map, and the pooled vector is their mean.
  """

  config: FastViTConfig

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
    x, layer = self._stem(images.astype(c.dtype), training), 0
    for stage, (width, blocks) in enumerate(zip(c.widths, c.layers, strict=True)):
      if stage:
        downsample = Downsample(width, c.has_squeeze(stage), c.norm, c.dtype, name=f"stage_{stage}_downsample")
        x = downsample(x, training=training)
      if c.has_attention(stage):
        x = x + self._positions(stage)(x)
      for block in range(blocks):
        rate, name = c.drop_path * layer / max(1, sum(c.layers) - 1), f"stage_{stage}_block_{block}"
        shared = (c.expansion, c.norm, rate, c.dtype)
        attends = c.has_attention(stage)
        made = AttentionBlock(*shared, c.attention_norm, name=name) if attends else RepMixerBlock(*shared, name=name)
        x, layer = made(x, rng=fold_in(rng, layer)), layer + 1
    x = Branches(c.pooled_width, (3, 1), c.norm, c.dtype, depthwise=True, name="last")(x, training=training)
    x = gelu(SqueezeExcite(c.pooled_width // 16, c.dtype, name="last_squeeze_excite")(x))
    tokens = rearrange(x, "b y x d -> b (y x) d")
    mask = jnp.ones(tokens.shape[:2], bool)
    return Encoded(tokens, mask, mean_pool(tokens, mask))

  def _stem(self, x: Array, training: bool) -> Array:
    c = self.config
    sizes, shared = (3, 1) if c.stem_scale else (3,), (c.norm, c.dtype)
    x = gelu(Branches(c.width, sizes, *shared, stride=2, name="stem_0")(x, training=training))
    x = gelu(Branches(c.width, sizes, *shared, stride=2, depthwise=True, name="stem_1")(x, training=training))
    return gelu(Branches(c.width, (1,), *shared, skip=True, name="stem_2")(x, training=training))

  def _positions(self, stage: int) -> nn.Conv:
    """Positional encoding by a depthwise convolution (Chu et al. 2021)."""
    c = self.config
    width = c.widths[stage]
    return nn.Conv(
      width, (7, 7), padding=3, feature_group_count=width, dtype=c.dtype, name=f"stage_{stage}_conv_positions"
    )
