"""Speech encoder: log-mel frames in, one vector for every second frame out (Radford et al. 2023, Whisper, section 2.2).

Two convolutions over time (the second halves the frames), fixed positions, and the transformer of all encoders.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from mmjax.data.columns.sound import PADDED
from mmjax.encoders.config import TowerConfig
from mmjax.nn.attention import Biased
from mmjax.nn.dense import Dense
from mmjax.nn.embeddings import sines_and_cosines
from mmjax.nn.flops import transformer_flops
from mmjax.nn.mlp import gelu
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import Transformer, TransformerConfig
from mmjax.types import Encoded

_STRIDE = 2  # of the second convolution


@dataclasses.dataclass(frozen=True)
class SpeechConfig(TransformerConfig, TowerConfig):
  """Configuration of a speech encoder; the defaults are Whisper tiny's. Raises ValueError if the fields are
  inconsistent."""

  width: int = 384
  """Width of the token vectors."""
  depth: int = 4
  """Number of blocks."""
  num_heads: int = 6
  """Number of attention heads; must divide width."""
  norm_epsilon: float = 1e-5
  """Added to the variance in every layer norm."""
  attention_bias: Biased = "query_value"
  """Projections with a bias, of the queries, keys and values of the blocks."""
  mel_bins: int = 80
  """Frequencies of the log-mel spectrogram."""
  frames: int = 3000
  """Frames of the longest clip; must be even. Whisper's 3000 frames of 10 ms are 30 s."""
  masked: bool = False
  """Leave out the frames after the end of a clip (Sound.pad="mask"), in convolutions, attention and the mean."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.frames < _STRIDE or self.frames % _STRIDE:
      raise ValueError(f"frames={self.frames} must be even and at least {_STRIDE}: a convolution halves the frames")
    if self.mel_bins < 1:
      raise ValueError(f"mel_bins={self.mel_bins} must be at least 1")
    if self.width % 2 or self.width < 4:
      raise ValueError(f"width={self.width} must be even and at least 4 for sinusoidal positions")

  @property
  def pooled_width(self) -> int:
    """Width of the pooled vector."""
    return self.width

  @property
  def max_length(self) -> int:
    """Tokens of the longest clip."""
    return self.frames // _STRIDE

  def flops(self) -> int:
    stem = 6 * self.width * (self.frames * self.mel_bins + self.max_length * self.width)
    return stem + transformer_flops(self, self.max_length)

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.frames, self.mel_bins), jnp.float32)

  def build(self) -> nn.Module:
    return SpeechTransformer(self)


class SpeechTransformer(nn.Module):
  """Speech encoder. Maps log-mel spectrograms [batch, frames, mel_bins] to `Encoded`.

  `pooled` is the mean of the tokens. A clip may have fewer frames than the configuration's. Without `masked` there is
  no mask: silence is read like any other sound. With it, frames of PADDED (mmjax.data.columns.sound) are left out.

  Parameters: conv_0, conv_1, transformer and fixed_positions. The last one has no gradient and no decay; files have it.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mmjax.encoders import SpeechConfig, SpeechTransformer
    >>> config = SpeechConfig(width=8, depth=1, num_heads=2, mel_bins=5, frames=12)
    >>> encoded, _ = SpeechTransformer(config).init_with_output(jax.random.key(0), jnp.zeros((2, 12, 5)))
    >>> encoded.tokens.shape, encoded.pooled.shape
    ((2, 6, 8), (2, 8))
  """

  config: SpeechConfig

  @nn.compact
  def __call__(self, frames: Float[Array, "batch frames mel_bins"], *, rng: Rngs = None) -> Encoded:
    """Encodes clips.

    Args:
      frames: log-mel spectrograms.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
    Raises:
      ValueError: the clips are longer than the configuration's frames, or have other mel_bins.
    """
    c = self.config
    if frames.shape[1] > c.frames or frames.shape[2] != c.mel_bins:
      raise ValueError(
        f"clips have {frames.shape[1]} frames of {frames.shape[2]} frequencies, but the model takes at most "
        f"frames={c.frames} of mel_bins={c.mel_bins}"
      )
    real = frames[:, :, 0] > PADDED / 2 if c.masked else jnp.ones(frames.shape[:2], bool)
    x = jnp.where(real[:, :, None], frames, 0.0).astype(c.dtype) if c.masked else frames.astype(c.dtype)
    for i, stride in enumerate((1, _STRIDE)):
      x = gelu(Dense(c.width, nn.initializers.lecun_normal(), dtype=c.dtype, name=f"conv_{i}")(_windows(x, stride)))
      real = real[:, ::stride]
      x = jnp.where(real[:, :, None], x, 0) if c.masked else x
    positions = self.param("fixed_positions", lambda _: sines_and_cosines(c.max_length, c.width))
    x = x + lax.stop_gradient(positions)[None, : x.shape[1]].astype(x.dtype)
    tokens, _ = Transformer(c, name="transformer")(x, real if c.masked else None, rng=rng)
    return Encoded(tokens, real, mean_pool(tokens, real))


def _windows(x: Float[Array, "batch frames channels"], stride: int) -> Float[Array, "batch out window"]:
  """Windows of three frames of a convolution with padding 1, concatenated over channels."""
  length = x.shape[1]
  padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
  return jnp.concatenate([padded[:, i : i + length : stride] for i in range(3)], axis=-1)
