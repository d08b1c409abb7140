"""Audio spectrogram transformer: features of sound in, tokens of overlapping patches out (Gong et al. 2021)."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float

from mmjax.data.columns.sound import PADDED
from mmjax.encoders.config import TowerConfig
from mmjax.nn.flops import transformer_flops
from mmjax.nn.initial import embedding_init
from mmjax.nn.norm import LayerNorm
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import Transformer, TransformerConfig
from mmjax.types import Encoded

FIRST = 2
"""Tokens before the patches: the class token and the distillation token of DeiT, from which AST began."""


@dataclasses.dataclass(frozen=True)
class AstConfig(TransformerConfig, TowerConfig):
  """Configuration of an audio spectrogram transformer. Raises ValueError if the fields are inconsistent."""

  frames: int = 1024
  """Frames of a clip (Sound.num_frames)."""
  bands: int = 128
  """Features of a frame (Sound.features.size)."""
  patch_size: int = 16
  """Side of a patch, in frames and in bands."""
  time_stride: int = 10
  """Frames between the beginnings of two patches."""
  band_stride: int = 10
  """Bands between the beginnings of two patches."""
  positions: Literal["patch", "axes"] = "patch"
  """Learned position embeddings: one per patch (AST), or the sum of one per place in time and one per band."""
  pool: Literal["cls_distillation", "cls", "mean", "flat"] = "cls_distillation"
  """Pooled vector: the mean of the two first tokens (AST), the class token, the mean over the patches, or all patches
  concatenated (for few patches of words that are aligned in time, Sound.pad="stretch")."""
  norm_after_pool: bool = False
  """Normalise the pooled vector, as AST's classifier does."""
  masked: bool = False
  """Leave out patches that begin after the end of their clip (Sound.pad="mask"), in attention and in the mean."""
  patch_bands: int | None = None
  """Bands of a patch, such as all of them, which Gong et al. found best without pretraining. None: patch_size."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.frames < self.patch_size or not 1 <= self.patch_height <= self.bands:
      raise ValueError(
        f"frames={self.frames} and bands={self.bands} must be at least those of a patch, {self.patch_size} and "
        f"{self.patch_height}"
      )
    if self.pool == "flat" and self.masked:
      raise ValueError('pool="flat" must have every patch: set masked=False')
    if min(self.time_stride, self.band_stride) < 1:
      raise ValueError(f"time_stride={self.time_stride} and band_stride={self.band_stride} must be at least 1")

  @property
  def pooled_width(self) -> int:
    rows, columns = self.grid
    return rows * columns * self.width if self.pool == "flat" else self.width

  @property
  def patch_height(self) -> int:
    """Bands of a patch."""
    return self.patch_size if self.patch_bands is None else self.patch_bands

  @property
  def grid(self) -> tuple[int, int]:
    """Patches over the bands, and over time."""
    rows = (self.bands - self.patch_height) // self.band_stride + 1
    return rows, (self.frames - self.patch_size) // self.time_stride + 1

  def flops(self) -> int:
    rows, columns = self.grid
    patches = rows * columns
    return 2 * patches * self.patch_size * self.patch_height * self.width + transformer_flops(self, patches + FIRST)

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.frames, self.bands), jnp.float32)

  def build(self) -> nn.Module:
    return Ast(self)


class Ast(nn.Module):
  """Audio spectrogram transformer. Maps features [batch, frames, bands] to `Encoded`.

  The tokens are the class token, the distillation token, and the patches: all of the lowest bands over time first.
  Frames of PADDED (mmjax.data.columns.sound) count as zeros. With `masked`, patches of them alone are masked.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> size = dict(patch_size=4, time_stride=4, band_stride=4, width=8, depth=1, num_heads=2)
    >>> config = AstConfig(frames=20, bands=8, **size)
    >>> encoded, variables = Ast(config).init_with_output(jax.random.key(0), jnp.zeros((3, 20, 8)))
    >>> encoded.tokens.shape, encoded.pooled.shape
    ((3, 12, 8), (3, 8))
  """

  config: AstConfig

  @nn.compact
  def __call__(self, features: Float[Array, "batch frames bands"], *, rng: Rngs = None) -> Encoded:
    """Encodes features of sound.

    Args:
      features: normalised features, such as of mmjax.data.sound.features.Fbank.
      rng: one key per example for stochastic depth; None: evaluation.
    Raises: ValueError: the features do not have the size of the configuration.
    """
    c = self.config
    if features.shape[1:] != (c.frames, c.bands):
      raise ValueError(
        f"features are {features.shape[1]} frames x {features.shape[2]}, but frames={c.frames} and bands={c.bands}"
      )
    real = features[:, :, 0] > PADDED / 2
    x = self._embed(jnp.where(real[:, :, None], features, 0.0))
    mask = self._mask(real) if c.masked else None
    tokens, first = Transformer(c, name="transformer")(x, mask, rng=fold_in(rng, 1))
    mask = jnp.ones(tokens.shape[:2], bool) if mask is None else mask
    match c.pool:
      case "cls":
        pooled = first
      case "mean":
        pooled = mean_pool(tokens[:, FIRST:], mask[:, FIRST:])
      case "flat":
        pooled = rearrange(tokens[:, FIRST:], "b p d -> b (p d)")
      case _:
        pooled = (tokens[:, 0] + tokens[:, 1]) / 2
    return Encoded(tokens, mask, LayerNorm(c.norm_epsilon, name="norm")(pooled) if c.norm_after_pool else pooled)

  def _mask(self, real: Bool[Array, "batch frames"]) -> Bool[Array, "batch length"]:
    """True for the first tokens, for the patches of the first frame, and for patches that begin in the clip."""
    c, (rows, columns) = self.config, self.config.grid
    begins = real[:, : (columns - 1) * c.time_stride + 1 : c.time_stride].at[:, 0].set(True)
    patches = jnp.tile(begins, (1, rows))
    return jnp.concatenate([jnp.ones((len(real), FIRST), bool), patches], axis=1)

  def _embed(self, features: Float[Array, "batch frames bands"]) -> Float[Array, "batch length width"]:
    c, (rows, columns) = self.config, self.config.grid
    image = rearrange(features, "b t f -> b f t 1").astype(c.dtype)
    size, strides = (c.patch_height, c.patch_size), (c.band_stride, c.time_stride)
    x = nn.Conv(c.width, size, strides, "VALID", dtype=c.dtype, name="projection")(image)
    init = embedding_init(c.init_scheme, c.width**-0.5, c.width)
    if c.positions == "patch":
      positions = self.param("position_embedding", init, (rows * columns, c.width), jnp.float32)
    else:
      bands = self.param("band_position_embedding", init, (rows, 1, c.width), jnp.float32)
      times = self.param("time_position_embedding", init, (1, columns, c.width), jnp.float32)
      positions = rearrange(bands + times, "f t d -> (f t) d")
    x = rearrange(x, "b f t d -> b (f t) d") + positions[None].astype(x.dtype)
    names = ("class_token", "register_tokens")
    first = jnp.concatenate([self.param(name, init, (1, c.width), jnp.float32) for name in names])
    first = first + self.param("class_position", init, (FIRST, c.width), jnp.float32)
    return jnp.concatenate([jnp.broadcast_to(first[None].astype(x.dtype), (len(x), *first.shape)), x], axis=1)
