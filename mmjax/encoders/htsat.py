"""HTS-AT: a Swin transformer over a spectrogram that is folded into a square (Chen et al. 2022; CLAP's encoder)."""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig
from mmjax.encoders.swin import SwinConfig, encode_map
from mmjax.nn.channel_norm import ChannelNorm, ChannelNormKind
from mmjax.nn.stochastic import Rngs
from mmjax.types import Encoded

_CLIP = 1001  # frames of 10 s at 48 kHz, every 480 samples


@dataclasses.dataclass(frozen=True)
class HtsatConfig(TowerConfig):
  """Configuration of HTS-AT. Raises ValueError if the bands do not divide the side of the square."""

  bands: int = 64
  """Features of a frame (Sound.features.size); must divide swin.image_size."""
  swin: SwinConfig = SwinConfig(image_size=256, width=96, num_heads=(4, 8, 16, 32), window_size=8)
  """The transformer. The side of its image is the side of the square."""
  norm: ChannelNormKind = "batch"
  """Normalisation of each band. "batch": batch norm with the statistics of the global batch in training, and their
  running averages in evaluation; it needs parallel.microbatches=1. "frozen": batch norm with the statistics of
  published weights, which never change. "group": group norm."""

  def __post_init__(self) -> None:
    if self.bands < 1 or self.swin.image_size % self.bands:
      raise ValueError(f"bands={self.bands} must divide swin.image_size={self.swin.image_size}")

  @property
  def most_frames(self) -> int:
    """Frames that fill the square. Fewer are stretched to it."""
    return self.swin.image_size * self.swin.image_size // self.bands

  @property
  def pooled_width(self) -> int:
    """Width of the pooled vector."""
    return self.swin.pooled_width

  @property
  def batch_statistics(self) -> bool:
    """True if the result for an example depends on the other examples of a training batch."""
    return self.norm == "batch"

  def flops(self) -> int:
    c = self.swin
    return c.flops() - 4 * c.side(0) ** 2 * c.patch_size**2 * c.width  # one channel in place of three

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, min(_CLIP, self.most_frames), self.bands), jnp.float32)

  def build(self) -> nn.Module:
    return Htsat(self)


class Htsat(nn.Module):
  """HTS-AT. Maps features [batch, frames, bands] to `Encoded`: the positions of the last map, and their mean.

  Parameters: input_norm, and those of `Swin`.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mmjax.encoders import Htsat, HtsatConfig, SwinConfig
    >>> swin = SwinConfig(image_size=16, patch_size=2, width=8, layers=(1, 1), num_heads=(2, 4), window_size=4)
    >>> config = HtsatConfig(bands=8, swin=swin)
    >>> encoded, variables = Htsat(config).init_with_output(jax.random.key(0), jnp.zeros((3, 30, 8)))
    >>> encoded.tokens.shape, encoded.pooled.shape
    ((3, 16, 16), (3, 16))
  """

  config: HtsatConfig

  @nn.compact
  def __call__(self, features: Float[Array, "batch frames bands"], *, rng: Rngs = None) -> Encoded:
    """Encodes features of sound.

    Args:
      features: log-mel features in decibels.
      rng: one key per example for stochastic depth; None: evaluation.
    Raises: ValueError: the features have other bands, or more frames than fill the square.
    """
    c, frames = self.config, features.shape[1]
    if features.shape[2] != c.bands or frames > c.most_frames:
      raise ValueError(
        f"features are {frames} frames x {features.shape[2]}, but at most {c.most_frames} frames x bands={c.bands} fit"
      )
    x = ChannelNorm(c.norm, name="input_norm")(features[:, None], training=rng is not None)[:, 0]
    if frames < c.most_frames:
      x = jnp.einsum("tf,bfd->btd", jnp.asarray(stretching(frames, c.most_frames)), x)
    # Quarters of the clip (with 64 bands in 256 rows) lie on top of each other; the columns are time.
    square = rearrange(x, "b (part t) d -> b (part d) t 1", t=c.swin.image_size)
    return encode_map(c.swin, square, rng)


@functools.lru_cache(maxsize=8)
def stretching(old: int, new: int) -> Float[np.ndarray, "new old"]:
  """Weights of bicubic interpolation from `old` to `new` places, from the first to the last (PyTorch's align_corners).

  The kernel has a = -0.75, and places beyond the ends are those at the ends.
  """
  centres = np.linspace(0.0, old - 1, new)
  weights = np.zeros((new, old), np.float32)
  for offset in range(-1, 3):
    places = np.floor(centres).astype(int) + offset
    x = np.abs(centres - places)
    near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
    kernel = np.where(x <= 1, near, np.where(x < 2, far, 0))
    np.add.at(weights, (np.arange(new), places.clip(0, old - 1)), kernel.astype(np.float32))
  weights.flags.writeable = False
  return weights
