"""Random changes of training clips: time shift, gain, noise, and bands of a spectrogram that are hidden."""

import dataclasses

import numpy as np
from jaxtyping import Float

from mmjax.data.sound.clip import SILENT

_POINTS = 4  # of the random filter, the two ends included


@dataclasses.dataclass(frozen=True)
class SoundAugmentation:
  """Random changes of training clips. All are off by default. Raises ValueError if a field is out of range."""

  shift: float = 0.0
  """Largest shift in seconds, either way. The clip loses its beginning (at most half of it), or begins with silence."""
  gain: float = 0.0
  """Largest change of the loudness in decibels, either way."""
  noise: float = 0.0
  """Probability that white noise is added."""
  noise_level: tuple[float, float] = (10.0, 40.0)
  """Signal to noise ratio in decibels, lowest and highest."""
  band_warp: float = 0.0
  """Largest share by which the axis of bands is stretched or compressed, such as 0.1: as another length of the vocal
  tract would (VTLP, Jaitly and Hinton 2013, here linear in the bands)."""
  band_gain: float = 0.0
  """Largest value that is added to bands or subtracted from them, in units of the features: a filter that is linear
  between four random points and the same for all frames (FilterAugment, Nam et al. 2022), as of another recording."""
  time_masks: int = 0
  """Number of ranges of frames that are hidden (SpecAugment, Park et al. 2019, section 2)."""
  time_width: int = 10
  """Most frames of a hidden range."""
  band_masks: int = 0
  """Number of ranges of bands that are hidden (SpecAugment)."""
  band_width: int = 8
  """Most bands of a hidden range."""

  def __post_init__(self) -> None:
    if min(self.shift, self.gain, self.time_masks, self.band_masks) < 0 or not 0 <= self.noise <= 1:
      raise ValueError("shift, gain, time_masks and band_masks must not be negative, and noise must lie in [0, 1]")
    if self.band_gain < 0:
      raise ValueError(f"band_gain is {self.band_gain}: it must not be negative")
    if not 0 <= self.band_warp < 1:
      raise ValueError(f"band_warp is {self.band_warp}: it must lie in [0, 1)")
    if min(self.time_width, self.band_width) < 1 or self.noise_level[0] > self.noise_level[1]:
      raise ValueError("time_width and band_width must be at least 1, and noise_level must be ascending")

  def samples(
    self, samples: Float[np.ndarray, "samples"], rate: int, rng: np.random.Generator
  ) -> Float[np.ndarray, "changed"]:
    """Shift a clip, change its loudness, and add noise. The clip itself is not changed."""
    shift, gain, noise, level = rng.random(4).tolist()
    if self.shift:
      samples = shifted(samples, round((2 * shift - 1) * self.shift * rate))
    if self.gain:
      samples = samples * np.float32(10 ** ((2 * gain - 1) * self.gain / 20))
    if noise < self.noise:
      low, high = self.noise_level
      samples = noisy(samples, low + level * (high - low), rng)
    return samples

  def features(self, values: Float[np.ndarray, "frames size"], rng: np.random.Generator) -> None:
    """Warp and filter the bands, then hide ranges of frames and of bands, in place: they get the mean of the clip."""
    if self.band_warp:
      values[:] = warped(values, 1 + self.band_warp * (2 * rng.random() - 1))
    if self.band_gain:
      bands, points = np.arange(values.shape[1]), np.linspace(0, values.shape[1] - 1, _POINTS)
      values += np.interp(bands, points, self.band_gain * (2 * rng.random(_POINTS) - 1)).astype(np.float32)[None]
    if not self.time_masks and not self.band_masks:
      return
    mean = values.mean()
    for masks, width, axis in ((self.time_masks, self.time_width, 0), (self.band_masks, self.band_width, 1)):
      for size, place in rng.random((masks, 2)).tolist():
        length = min(int(size * (width + 1)), values.shape[axis])
        start = int(place * (values.shape[axis] - length + 1))
        hidden = slice(start, start + length)
        values[(hidden, slice(None)) if axis == 0 else (slice(None), hidden)] = mean


def warped(values: Float[np.ndarray, "frames size"], factor: float) -> Float[np.ndarray, "frames size"]:
  """Give band b what band factor * b had, linearly interpolated. Bands beyond the last one get what it had."""
  last = values.shape[1] - 1
  places = np.minimum(np.arange(values.shape[1]) * factor, last)
  below = np.minimum(places.astype(int), max(last - 1, 0))
  share = (places - below).astype(np.float32)[None]
  return values[:, below] * (1 - share) + values[:, np.minimum(below + 1, last)] * share


def shifted(samples: Float[np.ndarray, "samples"], shift: int) -> Float[np.ndarray, "changed"]:
  """Begin a clip with `shift` samples of silence, or leave out its first -shift samples, at most half of it."""
  if shift > 0:
    return np.concatenate([np.zeros(shift, samples.dtype), samples])
  return samples[min(-shift, len(samples) // 2) :]


def noisy(
  samples: Float[np.ndarray, "samples"], decibels: float, rng: np.random.Generator
) -> Float[np.ndarray, "samples"]:
  """Add white noise with a signal to noise ratio in decibels. Silence gets none."""
  if np.abs(samples).max() <= SILENT:
    return samples
  level = np.sqrt(np.mean(np.square(samples, dtype=np.float64))) * 10 ** (-decibels / 20)
  return samples + rng.standard_normal(len(samples), np.float32) * np.float32(level)
