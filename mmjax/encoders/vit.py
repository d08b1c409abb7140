"""Vision transformer: images in, patch tokens out (Dosovitskiy et al. 2021)."""

import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float

from mmjax.encoders.config import TowerConfig, check_image_size
from mmjax.nn.channel_norm import ChannelNormKind
from mmjax.nn.embeddings import ConvStem, NestedStem, PatchEmbed, sincos_2d, stem_widths
from mmjax.nn.flops import attention_pool_flops, query_pool_flops, transformer_flops
from mmjax.nn.initial import embedding_init
from mmjax.nn.mbconv import STRIDE, MBConvStem, mbconv_flops
from mmjax.nn.norm import LayerNorm
from mmjax.nn.offsets import OffsetBias, PatchBias
from mmjax.nn.pooling import AttentionPool, ProbePool, QueryPool, TanhPool, mean_pool
from mmjax.nn.rotary import Rotation, angles_2d, centered_positions, patch_positions, rotation
from mmjax.nn.stochastic import Rngs, drop_patches, fold_in
from mmjax.nn.transformer import Transformer, TransformerConfig, norm_layer
from mmjax.types import Encoded

_WITH_CLASS = ("cls", "cls_mean", "cls_map", "cls_and_mean", "queries")


@dataclasses.dataclass(frozen=True)
class ViTConfig(TransformerConfig, TowerConfig):
  """Configuration of a vision transformer. Raises ValueError if the fields are inconsistent."""

  image_size: int = 224
  """Side of the square input image in pixels."""
  patch_size: int = 16
  """Side of a patch in pixels; must divide image_size, unless drop_remainder is set."""
  drop_remainder: bool = False
  """Crop the pixels at the right and at the bottom that fill no patch (SigLIP So400m/14 at 384 pixels)."""
  pool: Literal["cls", "mean", "map", "flat", "cls_mean", "cls_map", "cls_and_mean", "queries", "probe"] = "map"
  """Pooling to one vector per image. "cls": a class token. "mean": the mean over patches. "map": attention by a learned
  query (MAP). "flat": all patches concatenated, for few patches of aligned images, where the position of a patch is
  informative. Five more are for published weights: "cls_mean" is the mean over patches that have read a class token.
  "cls_map" is "map" over a class token and the patches (PE). "cls_and_mean" is the class token and the mean over
  patches, concatenated (DINOv2's classifier). "queries" takes the first of pool_queries learned queries; the others are
  the tokens (CoCa). "probe" is attention by a learned query without a projection of it, and no MLP follows (AIMv2).
  """
  map_heads: int | None = None
  """Attention heads of pool="map"; must divide width. None: num_heads."""
  map_mlp_dim: int | None = None
  """Hidden width of the MLP of pool="map"; None: that of the blocks."""
  pool_queries: int = 256
  """Number of learned queries of pool="queries"."""
  pool_width: int = 512
  """Width of the learned queries of pool="queries"."""
  pool_heads: int = 8
  """Attention heads of pool="queries"; must divide pool_width."""
  positions: Literal["learned", "sincos2d", "offsets", "none"] = "learned"
  """Position embeddings of the patches: learned, fixed sine and cosine functions, or none, for a convolutional stem or
  rotary positions. "offsets": a bias of the attention logits instead, from an MLP of the patches' offset in each block.
  """
  offset_width: int = 256
  """Hidden width of the MLPs of positions="offsets"."""
  patch_bias: Literal["none", "blocks", "shared"] = "none"
  """Learned bias of the attention logits for each offset of two patches (BEiT, Bao et al. 2022), beside `positions`.
  "blocks": each block has its own. "shared": all blocks have the same.
  """
  rotary: Literal["none", "patches", "centered"] = "none"
  """Rotate the queries and keys of the patches by their positions (two-dimensional rotary embedding). "patches":
  positions are counted in patches (EVA02, PE). "centered": the image reaches from -2 pi to 2 pi (DINOv3).
  """
  rotary_temperature: float = 100.0
  """Frequencies of rotary positions fall geometrically from 1 towards 1 / rotary_temperature."""
  rotary_grid: int | None = None
  """Stretch the positions of rotary="patches" to those of a grid with this many patches along one side, such as that of
  the pretraining. None: do not."""
  rotary_start: float = 0.0
  """Position of the first patch of rotary="patches", before it is stretched. The class token is at 0."""
  rotary_axes: Literal["yx", "xy"] = "yx"
  """Axes that the first and the second half of the rotary frequencies follow."""
  stem: Literal["patch", "conv", "mbconv", "mobileclip"] = "patch"
  """Map from pixels to tokens. "patch": a linear map of each patch. "conv": log2(patch_size) 3x3 convolutions of stride
  2. "mbconv": two stages of inverted bottlenecks, for patch_size=16 (ViTamin, Chen et al. 2024).
  "mobileclip": linear maps of patches of 4, 2 and 2 pixels with a normalisation between them, for patch_size=16
  (MobileCLIP-B, Vasu et al. 2024).
  """
  stem_width: int = 64
  """Channels of the first stage of stem="mbconv". The second stage has twice as many."""
  stem_norm: ChannelNormKind = "group"
  """Normalisation in stem="mobileclip". "group": group norm, for any batch. "batch": batch norm with the statistics of
  the global batch in training, and their running averages in evaluation (MobileCLIP's training); it needs
  parallel.microbatches=1. "frozen": batch norm with the statistics of published weights, which never change.
  """
  patch_norm: bool = False
  """Normalise the patches before their positions are added (AIMv2)."""
  stem_bias: bool = True
  """Add a bias to the linear map of a patch (CLIP: no)."""
  class_position: bool = False
  """Add a separate position embedding to the class token, as in ViT and CLIP. It adds nothing to training."""
  registers: int = 0
  """Number of learned tokens between the class token and the patches, which no pooling reads: registers (Darcet et al.
  2024), or the distillation token of DeiT (Touvron et al. 2021)."""
  register_position: bool = False
  """Add a separate position embedding to each register (DeiT)."""
  norm_after_pool: bool = False
  """Normalise the mean over the patches, and not the tokens before it (CLIPA, Li et al. 2023)."""
  tanh_pool: bool = False
  """Apply a linear layer and tanh to the pooled vector (ViTModel of transformers)."""
  patch_dropout: float = 0.0
  """Fraction of the patches that are dropped at random in training (FLIP, Li et al. 2023)."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.image_size % self.patch_size and not self.drop_remainder:
      raise ValueError(f"image_size={self.image_size} must be divisible by patch_size={self.patch_size}")
    if self.stem == "conv" and self.patch_size & (self.patch_size - 1):
      raise ValueError(f'patch_size={self.patch_size} must be a power of two for stem="conv"')
    if self.stem in ("mbconv", "mobileclip") and self.patch_size != STRIDE:
      raise ValueError(f'patch_size={self.patch_size} must be {STRIDE} for stem="{self.stem}"')
    if self.stem == "mobileclip" and self.width % 4:
      raise ValueError(f'width={self.width} must be divisible by 4 for stem="mobileclip"')
    if self.positions == "sincos2d" and self.width % 4:
      raise ValueError(f'width={self.width} must be divisible by 4 for positions="sincos2d"')
    if self.positions == "offsets" and self.patch_dropout:
      raise ValueError('positions="offsets" needs every patch: set patch_dropout=0')
    if self.patch_bias != "none":
      if self.patch_dropout or self.registers or self.positions == "offsets":
        raise ValueError(
          f'patch_bias="{self.patch_bias}" needs every patch and no other token than the class token: set '
          'patch_dropout=0, registers=0 and positions other than "offsets"'
        )
      if not self.has_class_token:
        raise ValueError(f'patch_bias="{self.patch_bias}" needs a class token: set pool to "cls" or "cls_mean"')
    if self.class_position and not self.has_class_token:
      known = ", ".join(f'"{pool}"' for pool in _WITH_CLASS)
      raise ValueError(f'pool="{self.pool}" has no class token for class_position: set pool to one of {known}')
    if self.registers and not self.has_class_token:
      raise ValueError(f'registers={self.registers} needs a class token: set pool to "cls" or "cls_mean"')
    if self.register_position and not self.registers:
      raise ValueError("register_position=True needs registers of at least 1")
    if self.rotary != "none" and self.attention_width // self.num_heads % 4:
      head = self.attention_width // self.num_heads
      raise ValueError(
        f"rotary needs heads of 4, 8, ... features, not of {head}: width={self.width}, num_heads={self.num_heads}"
      )
    if self.map_heads is not None and self.width % self.map_heads:
      raise ValueError(f"width={self.width} must be divisible by map_heads={self.map_heads}")
    if self.pool == "queries" and (self.pool_queries < 2 or self.pool_width % self.pool_heads):
      raise ValueError(
        f"pool_queries={self.pool_queries} must be at least 2 (one is the pooled vector, the others are tokens), and "
        f"pool_width={self.pool_width} must be divisible by pool_heads={self.pool_heads}"
      )
    if self.norm_after_pool and (self.pool not in ("mean", "cls_mean") or self.norm != "pre"):
      raise ValueError('norm_after_pool needs pool="mean" or "cls_mean" and norm="pre"')
    if self.tanh_pool and self.pool in ("flat", "cls_and_mean"):
      raise ValueError(f'tanh_pool needs a pooled vector as wide as a token: choose a pool other than "{self.pool}"')
    if self.pool == "flat" and self.patch_dropout:
      raise ValueError('pool="flat" needs every patch: set patch_dropout=0')
    if not 0.0 <= self.patch_dropout < 1.0:
      raise ValueError(f"patch_dropout={self.patch_dropout} must lie in [0, 1)")

  @property
  def pooled_width(self) -> int:
    """Width of the pooled vector."""
    widths = {"flat": self.grid**2 * self.width, "queries": self.pool_width, "cls_and_mean": 2 * self.width}
    return widths.get(self.pool, self.width)

  @property
  def has_class_token(self) -> bool:
    """True if a learned class token precedes the patches."""
    return self.pool in _WITH_CLASS

  @property
  def batch_statistics(self) -> bool:
    """True if the result for an example depends on the other examples of a training batch."""
    return self.stem == "mobileclip" and self.stem_norm == "batch"

  @property
  def first_patch(self) -> int:
    """Number of tokens before the patches: the class token and the registers."""
    return self.has_class_token + self.registers

  @property
  def grid(self) -> int:
    """Number of patches along one side."""
    return self.image_size // self.patch_size

  def flops(self) -> int:
    patches, width = self.grid**2, self.width
    if self.stem == "patch":
      total = 2 * patches * 3 * self.patch_size**2 * width
    elif self.stem == "mbconv":
      total = mbconv_flops(width, self.stem_width, self.image_size)
    elif self.stem == "mobileclip":
      total = 2 * patches * width * (192 + 2 * width)
    else:
      widths = [3, *stem_widths(width, self.patch_size)]
      sides = [self.image_size >> (i + 1) for i in range(len(widths) - 1)]
      total = sum(2 * side**2 * 9 * a * b for side, a, b in zip(sides, widths, widths[1:]))
      total += 2 * patches * widths[-1] * width
    length = patches + self.first_patch
    total += transformer_flops(self, length)
    if self.pool == "queries":
      total += query_pool_flops(width, length, pool_width=self.pool_width, queries=self.pool_queries)
    elif self.pool in ("map", "cls_map"):
      total += attention_pool_flops(map_config(self), length)
    elif self.pool == "probe":
      total += 4 * length * width**2 + 4 * length * width + 2 * width**2
    return total + (2 * (self.pool_width if self.pool == "queries" else width) ** 2 if self.tanh_pool else 0)

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.image_size, self.image_size, 3), jnp.float32)

  def build(self) -> nn.Module:
    return ViT(self)


class ViT(nn.Module):
  """Vision transformer. Maps normalised images [batch, image_size, image_size, 3] to `Encoded`.

  The tokens are the patches, after the class token and the registers if there are any. With pool="queries" they are the
  queries instead.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mmjax.encoders import ViT, ViTConfig
    >>> config = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=2, pool="mean")
    >>> images = jnp.zeros((2, 8, 8, 3))
    >>> encoded, variables = ViT(config).init_with_output(jax.random.key(0), images)
    >>> encoded.tokens.shape, encoded.pooled.shape
    ((2, 4, 8), (2, 8))
  """

  config: ViTConfig

  @nn.compact
  def __call__(
    self,
    images: Float[Array, "batch height width 3"],
    *,
    rng: Rngs = None,
    hidden: Bool[Array, "batch patches"] | None = None,
    raw: bool = False,
    taps: int = 0,
  ) -> Encoded:
    """Encodes images.

    Args:
      images: normalised images.
      rng: one key per example for dropout of patches and elements, and stochastic depth; None: evaluation.
      hidden: True for each patch that is replaced by one learned vector (masked image modelling). The patch keeps its
        position embedding.
      raw: if True, the tokens are those before the last norm; the pooled vector is the same for pool="cls".
      taps: if not 0, the tokens are those after each of this many last blocks, one block after the other; pool="cls".
    Raises:
      ValueError: the images do not have the size image_size.
    """
    c = self.config
    check_image_size(images, c.image_size)
    x = self._embed(images, hidden, training=rng is not None)
    x = drop_patches(x, rate=c.patch_dropout, rng=fold_in(rng, 0))
    if c.has_class_token:
      first = jnp.broadcast_to(self._first()[None].astype(x.dtype), (x.shape[0], c.first_patch, c.width))
      x = jnp.concatenate([first, x], axis=1)
    transformer = Transformer(c, last_norm=not c.norm_after_pool, name="transformer")
    rotation = self._rotation(fold_in(rng, 0), x.shape[0])
    biases = self._biases()
    return self._pool(*transformer(x, rng=fold_in(rng, 1), rotation=rotation, biases=biases, raw=raw, taps=taps))

  @nn.jit
  def encode_image(self, images: Float[Array, "batch *image"]) -> Float[Array, "batch dim"]:
    """Image embeddings of an image encoder without a text encoder: the pooled vectors, in float32."""
    return self(images).pooled.astype(jnp.float32)

  def _first(self) -> Float[Array, "first width"]:
    """The class token and the registers, with their position embeddings."""
    c = self.config
    init = embedding_init(c.init_scheme, c.width**-0.5, c.width)
    first = self.param("class_token", init, (1, c.width), jnp.float32)
    if c.class_position:
      first = first + self.param("class_position", init, (1, c.width), jnp.float32)
    if not c.registers:
      return first
    registers = self.param("register_tokens", init, (c.registers, c.width), jnp.float32)
    if c.register_position:
      registers = registers + self.param("register_position", init, (c.registers, c.width), jnp.float32)
    return jnp.concatenate([first, registers], axis=0)

  def _pool(self, tokens: Float[Array, "batch length dim"], first: Float[Array, "batch dim"]) -> Encoded:
    c = self.config
    if c.pool == "queries":
      queries = QueryPool(_query_config(c), c.pool_queries, query_norm=True, name="pool")(tokens, None)
      tokens, first = queries[:, 1:], queries[:, 0]
    mask = jnp.ones(tokens.shape[:2], bool)
    match c.pool:
      case "map" | "cls_map":
        pooled = AttentionPool(map_config(c), name="pool")(tokens, None)
      case "probe":
        pooled = ProbePool(c, name="pool")(tokens)
      case "flat":
        pooled = rearrange(tokens, "b p d -> b (p d)")
      case "mean":
        pooled = mean_pool(tokens, mask)
      case "cls_mean":
        pooled = mean_pool(tokens[:, c.first_patch :], mask[:, c.first_patch :])
      case "cls_and_mean":
        mean = mean_pool(tokens[:, c.first_patch :], mask[:, c.first_patch :])
        pooled = jnp.concatenate([first, mean], axis=-1)
      case _:
        pooled = first
    if c.norm_after_pool:
      pooled = LayerNorm(c.norm_epsilon, name="norm")(pooled)
    if c.tanh_pool:
      pooled = TanhPool(c.dtype, c.init_scheme, name="tanh_pool")(pooled)
    return Encoded(tokens, mask, pooled)

  def _biases(self) -> Float[Array, "depth heads length length"] | None:
    """Biases of the attention logits of each block, for positions="offsets" and for patch_bias."""
    c = self.config
    if c.patch_bias == "shared":
      shared = PatchBias(c.num_heads, c.grid, name="patch_bias")()
      return jnp.broadcast_to(shared[None], (c.depth, *shared.shape))
    if c.patch_bias == "blocks":
      return jnp.stack([PatchBias(c.num_heads, c.grid, name=f"patch_bias_{layer}")() for layer in range(c.depth)])
    if c.positions != "offsets":
      return None
    make = functools.partial(OffsetBias, c.num_heads, c.grid, c.first_patch, c.offset_width)
    return jnp.stack([make(name=f"offset_bias_{layer}")() for layer in range(c.depth)])

  def _rotation(self, rng: Rngs, batch: int) -> Rotation | None:
    """Rotation of the tokens that patch dropout with the keys `rng` keeps; None without rotary positions."""
    c = self.config
    if c.rotary == "none":
      return None
    if c.rotary == "patches":
      positions = patch_positions(c.grid, stretched_to=c.rotary_grid or c.grid, start=c.rotary_start)
    else:
      positions = centered_positions(c.grid)
    head = c.attention_width // c.num_heads
    angles = angles_2d(positions, head, temperature=c.rotary_temperature, axes=c.rotary_axes)[None]
    if c.patch_dropout and rng is not None:
      angles = drop_patches(jnp.repeat(angles, batch, axis=0), rate=c.patch_dropout, rng=rng)
    return rotation(angles, prefix=c.first_patch)

  def _embed(
    self, images: Float[Array, "batch height width 3"], hidden: Array | None, *, training: bool
  ) -> Float[Array, "batch p dim"]:
    c = self.config
    if c.drop_remainder:
      images = images[:, : c.grid * c.patch_size, : c.grid * c.patch_size]
    match c.stem:
      case "conv":
        x = ConvStem(c.width, c.patch_size, c.dtype, c.norm_epsilon, name="stem")(images)
      case "mbconv":
        x = MBConvStem(c.width, c.stem_width, c.dtype, c.norm_epsilon, name="stem")(images)
      case "mobileclip":
        x = NestedStem(c.width, c.stem_norm, c.dtype, name="stem")(images, training=training)
      case _:
        x = PatchEmbed(c.width, c.patch_size, c.dtype, c.stem_bias, name="stem")(images)
    x = rearrange(x, "b y x d -> b (y x) d")
    if c.patch_norm:
      x = norm_layer(c, "patch_norm")(x)
    if hidden is not None:
      blank = self.param("mask_token", nn.initializers.normal(0.02), (1, c.width), jnp.float32)
      x = jnp.where(hidden[:, :, None], blank[None].astype(x.dtype), x)
    if c.positions in ("none", "offsets"):
      return x
    if c.positions == "sincos2d":
      positions = sincos_2d(c.grid, c.grid, c.width)
    else:
      init = embedding_init(c.init_scheme, c.width**-0.5, c.width)
      positions = self.param("position_embedding", init, (c.grid**2, c.width), jnp.float32)
    return x + positions[None].astype(x.dtype)


def map_config(c: ViTConfig) -> TransformerConfig:
  """Configuration of the attention and of the MLP of pool="map"."""
  names = ("width", "norm_epsilon", "qk_norm", "activation", "dtype", "attention", "init_scheme")
  return TransformerConfig(
    num_heads=c.map_heads or c.num_heads,
    mlp_dim=c.map_mlp_dim or c.hidden,
    **{name: getattr(c, name) for name in names},
  )


def _query_config(c: ViTConfig) -> TransformerConfig:
  """Configuration of the attention of pool="queries"."""
  names = ("norm_epsilon", "qk_norm", "dtype", "attention", "init_scheme")
  return TransformerConfig(width=c.pool_width, num_heads=c.pool_heads, **{name: getattr(c, name) for name in names})
