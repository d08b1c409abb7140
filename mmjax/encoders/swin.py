"""Swin transformer: attention within shifted windows of feature maps that shrink (Liu et al. 2021)."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig, check_image_size
from mmjax.nn.embeddings import PatchEmbed
from mmjax.nn.initial import InitScheme
from mmjax.nn.norm import LayerNorm
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import Remat, TransformerConfig, rematerialised
from mmjax.nn.windows import PatchMerging, WindowBlock
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class SwinConfig(TowerConfig):
  """Configuration of a Swin transformer. Raises ValueError if the fields are inconsistent."""

  image_size: int = 224
  """Side of the square input image in pixels."""
  patch_size: int = 4
  """Side of a patch in pixels."""
  width: int = 96
  """Width of the tokens of the first stage. Each further stage has twice the width and half the sides."""
  layers: tuple[int, ...] = (2, 2, 6, 2)
  """Number of blocks of each stage. Every second block shifts its windows."""
  num_heads: tuple[int, ...] = (3, 6, 12, 24)
  """Number of attention heads of each stage."""
  window_size: int = 7
  """Side of a window in tokens. A smaller map is one window."""
  mlp_ratio: float = 4.0
  """Hidden width of the MLP divided by the width."""
  activation: Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"] = "gelu"
  """Activation of the MLP (see `TransformerConfig.activation`)."""
  norm_epsilon: float = 1e-5
  """Added to the variance in every layer norm."""
  drop_path: float = 0.0
  """Probability of dropping a branch of the last block (stochastic depth). It rises linearly from 0 in the first."""
  remat: Remat = "none"
  """Activations that the backward pass recomputes (see `TransformerConfig.remat`)."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Compute dtype. Parameters, statistics and the softmax stay in float32."""
  attention: Literal["auto", "xla", "cudnn"] = "auto"
  """Implementation of attention (see `TransformerConfig.attention`)."""
  init_scheme: InitScheme = "bert"
  """Initial weights of the blocks (see `TransformerConfig.init_scheme`)."""

  def __post_init__(self) -> None:
    if not self.layers or min(self.layers) < 1 or len(self.layers) != len(self.num_heads):
      raise ValueError(f"layers={self.layers} and num_heads={self.num_heads} must have a positive number per stage")
    if self.image_size % (self.patch_size * 2 ** (len(self.layers) - 1)):
      factor = self.patch_size * 2 ** (len(self.layers) - 1)
      raise ValueError(f"image_size={self.image_size} must be divisible by {factor}, the pixels of a last token's side")
    for stage in range(len(self.layers)):
      self.block(stage)
      if self.side(stage) % self.window(stage):
        raise ValueError(
          f"stage {stage + 1} has {self.side(stage)} tokens a side for image_size={self.image_size}; "
          f"window_size={self.window_size} must divide them"
        )

  @property
  def pooled_width(self) -> int:
    """Width of the pooled vector."""
    return self.width * 2 ** (len(self.layers) - 1)

  @property
  def grid(self) -> int:
    """Tokens along one side of the last map."""
    return self.side(len(self.layers) - 1)

  def side(self, stage: int) -> int:
    """Tokens along one side of the map of a stage, counted from 0."""
    return self.image_size // (self.patch_size * 2**stage)

  def window(self, stage: int) -> int:
    """Tokens along one side of a window of a stage, counted from 0."""
    return min(self.window_size, self.side(stage))

  def block(self, stage: int) -> TransformerConfig:
    """Configuration of the blocks of a stage, counted from 0."""
    names = ("activation", "norm_epsilon", "drop_path", "remat", "dtype", "attention", "init_scheme")
    width = self.width * 2**stage
    return TransformerConfig(
      width=width,
      depth=sum(self.layers),
      num_heads=self.num_heads[stage],
      mlp_dim=int(self.mlp_ratio * width),
      **{name: getattr(self, name) for name in names},
    )

  def flops(self) -> int:
    total = 2 * self.side(0) ** 2 * 3 * self.patch_size**2 * self.width
    for stage, blocks in enumerate(self.layers):
      c, places = self.block(stage), self.side(stage) ** 2
      total += blocks * 2 * places * (4 * c.width**2 + 2 * c.width * c.hidden + 2 * self.window(stage) ** 2 * c.width)
      total += 2 * places * 2 * c.width * c.width if stage else 0  # merging: 4 (width / 2) to width
    return total

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.image_size, self.image_size, 3), jnp.float32)

  def build(self) -> nn.Module:
    return Swin(self)


class Swin(nn.Module):
  """Swin transformer. Maps normalised images [batch, image_size, image_size, 3] to `Encoded`.

  The tokens are the positions of the last feature map, and the pooled vector is their mean.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mmjax.encoders import Swin, SwinConfig
    >>> config = SwinConfig(image_size=16, patch_size=2, width=8, layers=(1, 1), num_heads=(2, 4), window_size=4)
    >>> encoded, variables = Swin(config).init_with_output(jax.random.key(0), jnp.zeros((2, 16, 16, 3)))
    >>> encoded.tokens.shape, encoded.pooled.shape
    ((2, 16, 16), (2, 16))
  """

  config: SwinConfig

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None) -> Encoded:
    """Encodes images.

    Args:
      images: normalised images.
      rng: one key per example for stochastic depth; None: evaluation.
    Raises:
      ValueError: the images do not have the size image_size.
    """
    check_image_size(images, self.config.image_size)
    return encode_map(self.config, images, rng)

  @nn.jit
  def encode_image(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch dim"]:
    """Image embeddings of an image encoder without a text encoder: the pooled vectors, in float32."""
    return self(images).pooled.astype(jnp.float32)


def encode_map(c: SwinConfig, images: Float[Array, "batch height width channels"], rng: Rngs) -> Encoded:
  """Encodes maps of any number of channels. The calling module gets the parameters.

  Args:
    c: configuration. The maps have sides of c.image_size.
    images: the maps.
    rng: one key per example for stochastic depth; None: evaluation.
  """
  x = PatchEmbed(c.width, c.patch_size, c.dtype, name="stem")(images.astype(c.dtype))
  x = LayerNorm(c.norm_epsilon, name="stem_norm")(x)
  make = rematerialised(WindowBlock, c.remat, scan=False)
  number = 0
  for stage, blocks in enumerate(c.layers):
    if stage:
      x = PatchMerging(c.dtype, c.norm_epsilon, name=f"stage_{stage}_merge")(x)
    window = c.window(stage)
    shift = window // 2 if window < c.side(stage) else 0
    for block in range(blocks):
      name = f"stage_{stage}_block_{block}"
      x = make(c.block(stage), window, shift * (block % 2), name=name)(x, rng, jnp.asarray(number))
      number += 1
  tokens = LayerNorm(c.norm_epsilon, name="norm")(rearrange(x, "b y x d -> b (y x) d"))
  mask = jnp.ones(tokens.shape[:2], bool)
  return Encoded(tokens, mask, mean_pool(tokens, mask))
