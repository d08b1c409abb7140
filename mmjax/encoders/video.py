"""Encoder of videos: an image encoder for the frames, and an encoder of their order."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float

from mmjax.data.columns.video import PADDED
from mmjax.encoders.config import TowerConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.nn.flops import transformer_flops
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.temporal import Temporal, TemporalEncoder
from mmjax.nn.transformer import TransformerConfig
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class VideoConfig(TowerConfig):
  """Configuration of a video encoder, for the array of a column `Video`. Raises ValueError if the fields do not fit."""

  frame: TowerConfig = ViTConfig()
  """Encoder of a frame. Its parameters have the paths that they have in an image tower, so that those of an image-text
  model initialise a tower `image` (pretrained.path)."""
  frames: int = 12
  """Frames of a clip (Video.frames)."""
  temporal: Temporal = "mean"
  """Encoder of the order of the frames: mean (none), lstm or transformer."""
  temporal_depth: int = 4
  """Blocks of temporal="transformer"."""
  temporal_heads: int = 8
  """Attention heads of temporal="transformer". They divide the width of a frame's vector."""
  output: Literal["frames", "patches"] = "frames"
  """Tokens for fusions and decoders: one vector per frame, or the patches of all frames, each with the embedding of its
  frame added."""

  def __post_init__(self) -> None:
    if self.frames < 1:
      raise ValueError(f"frames={self.frames} must be at least 1")
    if self.output == "patches" and not hasattr(self.frame, "width"):
      raise ValueError(f'output="patches" needs the width of the tokens of {type(self.frame).__name__}, which has none')
    _ = self.mixer  # refuses what does not fit

  @property
  def mixer(self) -> TransformerConfig:
    """Configuration of the encoder of the order."""
    dtype: Any = getattr(self.frame, "dtype", "float32")
    heads = self.temporal_heads if self.temporal == "transformer" else 1
    return TransformerConfig(width=self.frame.pooled_width, depth=self.temporal_depth, num_heads=heads, dtype=dtype)

  @property
  def pooled_width(self) -> int:
    return self.frame.pooled_width

  @property
  def width(self) -> int:
    """Width of the tokens."""
    return self.frame.width if self.output == "patches" else self.frame.pooled_width  # type: ignore[attr-defined]

  @property
  def image_size(self) -> int:
    """Height and width of the frames."""
    return getattr(self.frame, "image_size", 0)

  @property
  def batch_statistics(self) -> bool:
    return self.frame.batch_statistics

  def flops(self) -> int:
    if self.temporal == "lstm":
      return self.frames * (self.frame.flops() + 16 * self.mixer.width**2)
    mixing = transformer_flops(self.mixer, self.frames) if self.temporal == "transformer" else 0
    return self.frames * self.frame.flops() + mixing

  def example(self, batch_size: int) -> Array:
    return jnp.repeat(self.frame.example(batch_size)[:, None], self.frames, axis=1)

  def build(self) -> nn.Module:
    return VideoTower(self)


class VideoTower(nn.Module):
  """Video encoder. Maps frames [batch, frames, height, width, 3] to `Encoded`.

  `pooled` is the mean over the frames of the clip. Parameters: those of the frame encoder, temporal, and with
  output="patches" frame_position_embedding.

  Example:
    >>> import jax
    >>> frame = ViTConfig(image_size=8, patch_size=4, width=8, depth=1, num_heads=2)
    >>> config = VideoConfig(frame=frame, frames=3, temporal="lstm")
    >>> encoded, variables = config.build().init_with_output(jax.random.key(0), config.example(2))
    >>> encoded.tokens.shape, encoded.pooled.shape
    ((2, 3, 8), (2, 8))
  """

  config: VideoConfig

  def setup(self) -> None:
    c = self.config
    self.frame = c.frame.build()
    nn.share_scope(self, self.frame)
    self.temporal = TemporalEncoder(c.temporal, c.mixer, c.frames)
    if c.output == "patches":
      init = nn.initializers.normal(0.02)
      self.places = self.param("frame_position_embedding", init, (c.frames, c.width), jnp.float32)

  def __call__(self, frames: Float[Array, "batch frames height width 3"], *, rng: Rngs = None) -> Encoded:
    """Encodes clips. Frames of PADDED (mmjax.data.columns.video) are left out.

    Raises: ValueError: the clips do not have the frames of the configuration.
    """
    c = self.config
    if frames.shape[1] != c.frames:
      raise ValueError(f"clips have {frames.shape[1]} frames, but frames={c.frames}")
    encoded, mask = encode_frames(self.frame, frames, rng=fold_in(rng, 0))
    vectors = rearrange(encoded.pooled, "(b t) d -> b t d", t=c.frames)
    mixed = self.temporal(vectors, mask, rng=fold_in(rng, 1))
    pooled = mean_pool(mixed, mask)
    if c.output == "frames":
      return Encoded(mixed, mask, pooled)
    tokens = rearrange(encoded.tokens, "(b t) p d -> b t p d", t=c.frames)
    tokens = tokens + self.places[None, :, None].astype(tokens.dtype)
    real = rearrange(encoded.mask, "(b t) p -> b t p", t=c.frames) & mask[:, :, None]
    return Encoded(rearrange(tokens, "b t p d -> b (t p) d"), rearrange(real, "b t p -> b (t p)"), pooled)


def frame_mask(frames: Float[Array, "batch frames height width 3"]) -> Bool[Array, "batch frames"]:
  """True for the frames of a clip, False for its padding."""
  return frames[:, :, 0, 0, 0] > PADDED / 2


def encode_frames(
  tower: Callable[..., Encoded], frames: Float[Array, "batch frames height width 3"], *, rng: Rngs = None
) -> tuple[Encoded, Bool[Array, "batch frames"]]:
  """Encodes all frames of clips in one batch. Each frame has its own randomness.

  Args:
    tower: encoder of images.
    frames: frames. Padding is encoded as black images, which nothing may read.
    rng: one key per clip. None: evaluation.
  Returns: (encodings of all frames [batch * frames, ...], mask).
  """
  mask = frame_mask(frames)
  images = jnp.where(mask[:, :, None, None, None], frames, 0.0)
  keys: Any = None
  if rng is not None:
    numbers = jnp.arange(frames.shape[1], dtype=jnp.uint32)
    each = jax.vmap(jax.vmap(jax.random.fold_in, in_axes=(None, 0)), in_axes=(0, None))
    keys = each(rng, numbers).reshape(-1)
  return tower(rearrange(images, "b t h w c -> (b t) h w c"), rng=keys), mask
