"""Vision transformer: images in, patch tokens out (Dosovitskiy et al. 2021)."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float

from mmjax.encoders.config import TowerConfig
from mmjax.nn.embeddings import ConvStem, PatchEmbed, sincos_2d, stem_widths
from mmjax.nn.flops import attention_pool_flops, query_pool_flops, transformer_flops
from mmjax.nn.pooling import AttentionPool, QueryPool, TanhPool, mean_pool
from mmjax.nn.stochastic import Rngs, drop_patches, fold_in
from mmjax.nn.transformer import Transformer, TransformerConfig
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class ViTConfig(TransformerConfig, TowerConfig):
  """A vision transformer. Raises ValueError where the fields do not fit each other."""

  image_size: int = 224
  """Side of the square input image in pixels."""
  patch_size: int = 16
  """Side of a patch in pixels; must divide image_size, unless drop_remainder."""
  drop_remainder: bool = False
  """Leave out the pixels at the right and below that fill no patch (SigLIP So400m/14 at 384 pixels)."""
  pool: Literal["cls", "mean", "map", "flat", "cls_mean", "queries"] = "map"
  """One vector per image: a class token, the mean over patches, attention by a learned query (MAP), or all patches
  side by side (flat: for few patches of aligned pictures, where the place of a patch says much); or as published
  open_clip weights want it: the mean over patches that have read a class token, or the first of pool_queries learned
  queries, of which the others are the image's tokens (CoCa)."""
  pool_queries: int = 256
  """Learned queries of pool="queries"."""
  pool_width: int = 512
  """Their width."""
  pool_heads: int = 8
  """Their attention heads."""
  positions: Literal["learned", "sincos2d"] = "learned"
  """Position embedding of the patches."""
  stem: Literal["patch", "conv"] = "patch"
  """From pixels to tokens: a linear map of each patch, or log2(patch_size) 3x3 stride-2 convolutions."""
  stem_bias: bool = True
  """Whether the linear map of a patch has a bias (CLIP: no)."""
  class_position: bool = False
  """Whether the class token has a position embedding of its own, as in ViT and CLIP (it adds nothing to training)."""
  tanh_pool: bool = False
  """A linear layer and tanh on the pooled vector (transformers' ViTModel)."""
  patch_dropout: float = 0.0
  """Share of the patches left out at random in training (FLIP, Li et al. 2023)."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.image_size % self.patch_size and not self.drop_remainder:
      raise ValueError(f"image_size={self.image_size} must be divisible by patch_size={self.patch_size}")
    if self.stem == "conv" and self.patch_size & (self.patch_size - 1):
      raise ValueError(f'patch_size={self.patch_size} must be a power of two for stem="conv"')
    if self.positions == "sincos2d" and self.width % 4:
      raise ValueError(f'width={self.width} must be divisible by 4 for positions="sincos2d"')
    if self.class_position and not self.has_class_token:
      raise ValueError(f'class_position needs pool="cls": pool="{self.pool}" has no class token')
    if self.pool == "queries" and (self.pool_queries < 2 or self.pool_width % self.pool_heads):
      raise ValueError(
        f"pool_queries={self.pool_queries} must be at least 2 (one is the image's vector, the others its tokens), and "
        f"pool_width={self.pool_width} divisible by pool_heads={self.pool_heads}"
      )
    if self.tanh_pool and self.pool == "flat":
      raise ValueError('tanh_pool needs one token of width: choose another pool than "flat"')
    if self.pool == "flat" and self.patch_dropout:
      raise ValueError('pool="flat" needs every patch: set patch_dropout=0')
    if not 0.0 <= self.patch_dropout < 1.0:
      raise ValueError(f"patch_dropout={self.patch_dropout} must lie in [0, 1)")

  @property
  def pooled_width(self) -> int:
    """Width of the one vector per image."""
    return {"flat": self.grid**2 * self.width, "queries": self.pool_width}.get(self.pool, self.width)

  @property
  def has_class_token(self) -> bool:
    """Whether a learned token stands before the patches."""
    return self.pool in ("cls", "cls_mean", "queries")

  @property
  def grid(self) -> int:
    """Patches along one side."""
    return self.image_size // self.patch_size

  def flops(self) -> int:
    patches, width = self.grid**2, self.width
    if self.stem == "patch":
      total = 2 * patches * 3 * self.patch_size**2 * width
    else:
      widths = [3, *stem_widths(width, self.patch_size)]
      sides = [self.image_size >> (i + 1) for i in range(len(widths) - 1)]
      total = sum(2 * side**2 * 9 * a * b for side, a, b in zip(sides, widths, widths[1:]))
      total += 2 * patches * widths[-1] * width
    length = patches + self.has_class_token
    total += transformer_flops(self, length)
    if self.pool == "queries":
      total += query_pool_flops(width, length, pool_width=self.pool_width, queries=self.pool_queries)
    elif self.pool == "map":
      total += attention_pool_flops(self, length)
    return total + (2 * (self.pool_width if self.pool == "queries" else width) ** 2 if self.tanh_pool else 0)

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.image_size, self.image_size, 3), jnp.float32)

  def build(self) -> nn.Module:
    return ViT(self)


class ViT(nn.Module):
  """Normalised images [batch, image_size, image_size, 3] to `Encoded`; a class token comes first."""

  config: ViTConfig

  @nn.compact
  def __call__(
    self,
    images: Float[Array, "batch height width 3"],
    *,
    rng: Rngs = None,
    hidden: Bool[Array, "batch patches"] | None = None,
  ) -> Encoded:
    """`hidden` patches are replaced by one learned vector, at their places (masked image modelling)."""
    c = self.config
    if images.shape[1:3] != (c.image_size, c.image_size):
      raise ValueError(f"images are {images.shape[1]}x{images.shape[2]}, but image_size={c.image_size}")
    x = self._embed(images, hidden)
    x = drop_patches(x, rate=c.patch_dropout, rng=fold_in(rng, 0))
    if c.has_class_token:
      cls = self.param("class_token", nn.initializers.normal(c.width**-0.5), (1, c.width), jnp.float32)
      if c.class_position:
        cls = cls + self.param("class_position", nn.initializers.normal(c.width**-0.5), (1, c.width), jnp.float32)
      cls = jnp.broadcast_to(cls[None].astype(x.dtype), (x.shape[0], 1, c.width))
      x = jnp.concatenate([cls, x], axis=1)
    return self._pool(*Transformer(c, name="transformer")(x, rng=fold_in(rng, 1)))

  def encode_image(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch dim"]:
    """The pooled vector alone, float32: what a tower without a partner embeds an image as."""
    return self(images).pooled.astype(jnp.float32)

  def _pool(self, tokens: Float[Array, "batch length dim"], first: Float[Array, "batch dim"]) -> Encoded:
    c = self.config
    if c.pool == "queries":
      queries = QueryPool(_query_config(c), c.pool_queries, query_norm=True, name="pool")(tokens, None)
      tokens, first = queries[:, 1:], queries[:, 0]
    mask = jnp.ones(tokens.shape[:2], bool)
    match c.pool:
      case "map":
        pooled = AttentionPool(c, name="pool")(tokens, None)
      case "flat":
        pooled = rearrange(tokens, "b p d -> b (p d)")
      case "mean":
        pooled = mean_pool(tokens, mask)
      case "cls_mean":
        pooled = mean_pool(tokens[:, 1:], mask[:, 1:])
      case _:
        pooled = first
    if c.tanh_pool:
      pooled = TanhPool(c.dtype, name="tanh_pool")(pooled)
    return Encoded(tokens, mask, pooled)

  def _embed(self, images: Float[Array, "batch height width 3"], hidden: Array | None) -> Float[Array, "batch p dim"]:
    c = self.config
    if c.drop_remainder:
      images = images[:, : c.grid * c.patch_size, : c.grid * c.patch_size]
    if c.stem == "conv":
      x = ConvStem(c.width, c.patch_size, c.dtype, c.norm_epsilon, name="stem")(images)
    else:
      x = PatchEmbed(c.width, c.patch_size, c.dtype, c.stem_bias, name="stem")(images)
    x = rearrange(x, "b y x d -> b (y x) d")
    if hidden is not None:
      blank = self.param("mask_token", nn.initializers.normal(0.02), (1, c.width), jnp.float32)
      x = jnp.where(hidden[:, :, None], blank[None].astype(x.dtype), x)
    if c.positions == "sincos2d":
      positions = sincos_2d(c.grid, c.grid, c.width)
    else:
      init = nn.initializers.normal(c.width**-0.5)
      positions = self.param("position_embedding", init, (c.grid**2, c.width), jnp.float32)
    return x + positions[None].astype(x.dtype)


def _query_config(c: ViTConfig) -> TransformerConfig:
  """What the attention of pool="queries" needs to know."""
  names = ("norm_epsilon", "qk_norm", "dtype", "attention")
  return TransformerConfig(width=c.pool_width, num_heads=c.pool_heads, **{name: getattr(c, name) for name in names})
