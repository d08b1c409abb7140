"""ConvNeXt: images in, a feature map and its mean out (Liu et al. 2022; version 2: Woo et al. 2023)."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig, check_image_size
from mmjax.nn.dense import Dense
from mmjax.nn.embeddings import PatchEmbed
from mmjax.nn.mlp import MLP, gelu
from mmjax.nn.norm import LayerNorm, LayerScale
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs, drop_path, fold_in
from mmjax.nn.transformer import Remat, rematerialised
from mmjax.types import Encoded

EXPANSION = 4  # hidden width of a block's MLP divided by the block's width
_KERNEL = 7  # side of the depthwise kernel
_INIT = nn.initializers.truncated_normal(0.02)


@dataclasses.dataclass(frozen=True)
class ConvNeXtConfig(TowerConfig):
  """Configuration of a ConvNeXt. Raises ValueError if the fields are inconsistent."""

  image_size: int = 224
  """Side of the square input image in pixels; must be divisible by 8 * patch_size."""
  patch_size: int = 4
  """Side of the patches of the stem in pixels. Three more steps halve the sides."""
  layers: tuple[int, int, int, int] = (3, 3, 9, 3)
  """Blocks in each of the four stages (tiny: 3 3 9 3; small to xlarge: 3 3 27 3)."""
  width: int = 96
  """Channels of the first stage. Each further stage has twice as many (tiny and small: 96; base: 128)."""
  layer_scale: float | None = 1e-6
  """Initial value of the learned scale of each branch (CaiT, Touvron et al. 2021); None: no scale (version 2)."""
  response_norm: bool = False
  """Apply global response normalisation to the hidden layer of each block's MLP (version 2)."""
  norm_epsilon: float = 1e-6
  """Added to the variance in the layer norms."""
  pool_epsilon: float | None = None
  """Added to the variance in the layer norm of the pooled vector; None: norm_epsilon."""
  pool_hidden: int | None = None
  """Width of a linear layer with GELU after the norm of the pooled vector (open_clip's timm_proj "mlp"); None: no such
  layer.
  """
  drop_path: float = 0.0
  """Probability of dropping the branch of the last block (stochastic depth). It rises linearly from 0 in the first."""
  remat: Remat = "none"
  """Activations that the backward pass recomputes (see `TransformerConfig.remat`)."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Compute dtype. Parameters and statistics stay in float32."""

  def __post_init__(self) -> None:
    if self.image_size % self.stride:
      raise ValueError(
        f"image_size={self.image_size} must be divisible by 8 * patch_size = {self.stride}, the product of the strides"
      )
    if len(self.layers) != 4 or min(self.layers) < 1:
      raise ValueError(f"layers={self.layers} must be four numbers of at least 1")
    if not 0.0 <= self.drop_path < 1.0:
      raise ValueError(f"drop_path={self.drop_path} must lie in [0, 1)")

  @property
  def stride(self) -> int:
    """Side of the square of pixels that one position of the last feature map stands for."""
    return 8 * self.patch_size

  @property
  def features(self) -> int:
    """Channels of the last stage."""
    return 8 * self.width

  @property
  def grid(self) -> int:
    """Positions along one side of the last feature map."""
    return self.image_size // self.stride

  @property
  def pooled_width(self) -> int:
    """Width of the pooled vector."""
    return self.features if self.pool_hidden is None else self.pool_hidden

  def flops(self) -> int:
    side, width = self.image_size // self.patch_size, self.width
    total = 2 * side**2 * 3 * self.patch_size**2 * width
    for stage, blocks in enumerate(self.layers):
      if stage:
        side, width = side // 2, 2 * width
        total += 2 * side**2 * 2 * width**2  # four positions of half the width
      total += blocks * 2 * side**2 * (_KERNEL**2 * width + 2 * EXPANSION * width**2)
    return total + (0 if self.pool_hidden is None else 2 * width * self.pool_hidden)

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.image_size, self.image_size, 3), jnp.float32)

  def build(self) -> nn.Module:
    return ConvNeXt(self)


class ConvNeXtBlock(nn.Module):
  """Residual block: a depthwise 7x7 convolution, layer norm and an MLP on each position.

  Parameters: depthwise, norm, mlp; scale, with `config.layer_scale`.

  Attributes:
    config: configuration of the network.
    layer: number of the block in the network.
  """

  config: ConvNeXtConfig
  layer: int

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, rng: Rngs
  ) -> Float[Array, "batch height width channels"]:
    c, channels = self.config, x.shape[-1]
    y = nn.Conv(
      channels,
      (_KERNEL, _KERNEL),
      padding=_KERNEL // 2,
      feature_group_count=channels,
      dtype=c.dtype,
      kernel_init=_INIT,
      name="depthwise",
    )(x)
    y = LayerNorm(c.norm_epsilon, name="norm")(y)
    y = MLP(EXPANSION * channels, "gelu", _INIT, c.dtype, "bert", response_norm=c.response_norm, name="mlp")(y)
    if c.layer_scale is not None:
      y = LayerScale(c.layer_scale, name="scale")(y)
    if c.drop_path:
      rate = c.drop_path * self.layer / max(1, sum(c.layers) - 1)
      y = drop_path(y, rate=rate, rng=fold_in(rng, self.layer))
    return x + y


class ConvNeXt(nn.Module):
  """ConvNeXt. Maps normalised images [batch, image_size, image_size, 3] to `Encoded`.

  The tokens are the positions of the last feature map. The pooled vector is the layer norm of their mean.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mmjax.encoders import ConvNeXt, ConvNeXtConfig
    >>> config = ConvNeXtConfig(image_size=64, layers=(1, 1, 1, 1), width=2)
    >>> encoded, variables = ConvNeXt(config).init_with_output(jax.random.key(0), jnp.zeros((3, 64, 64, 3)))
    >>> encoded.tokens.shape, encoded.pooled.shape
    ((3, 4, 16), (3, 16))
  """

  config: ConvNeXtConfig

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None) -> Encoded:
    """Encodes images.

    Args:
      images: normalised images.
      rng: one key per example for stochastic depth; None: evaluation.
    Raises:
      ValueError: the images do not have the size image_size.
    """
    c = self.config
    check_image_size(images, c.image_size)
    # The paper's bias is zero. With it, a patch of zeros (padding) stays zero through all norms, whose slope there is
    # epsilon^-0.5 each: the first gradients would be as large as 1e10.
    stem = PatchEmbed(c.width, c.patch_size, c.dtype, kernel_init=_INIT, bias_init=_INIT, name="stem")
    x, layer = LayerNorm(c.norm_epsilon, name="stem_norm")(stem(images.astype(c.dtype))), 0
    made = rematerialised(ConvNeXtBlock, c.remat, scan=False)
    for stage, blocks in enumerate(c.layers):
      if stage:
        x = LayerNorm(c.norm_epsilon, name=f"stage_{stage}_norm")(x)
        width = 2**stage * c.width
        x = PatchEmbed(width, 2, c.dtype, kernel_init=_INIT, name=f"stage_{stage}_downsample")(x)
      for block in range(blocks):
        x = made(c, layer, name=f"stage_{stage}_block_{block}")(x, rng=rng)
        layer += 1
    tokens = rearrange(x, "b y x d -> b (y x) d")
    mask = jnp.ones(tokens.shape[:2], bool)
    epsilon = c.norm_epsilon if c.pool_epsilon is None else c.pool_epsilon
    pooled = LayerNorm(epsilon, name="norm")(mean_pool(tokens, mask))
    if c.pool_hidden is not None:
      pooled = gelu(Dense(c.pool_hidden, _INIT, dtype=c.dtype, name="pool_projection")(pooled))
    return Encoded(tokens, mask, pooled)

  @nn.jit
  def encode_image(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch dim"]:
    """Image embeddings of an image encoder without a text encoder: the pooled vectors, in float32."""
    return self(images).pooled.astype(jnp.float32)
