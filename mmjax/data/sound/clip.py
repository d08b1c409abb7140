"""Clip, a recording in memory, and how its rate and its loudness are changed."""

import importlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.data.errors import DataError

SILENT = 1e-5
"""A clip with no sample above it (-100 dB) is silence."""


class Clip(NamedTuple):
  """A recording of one channel.

  Attributes:
    samples: float32, full scale is -1 to 1.
    rate: samples per second.
  """

  samples: Float[np.ndarray, "samples"]
  rate: int

  @property
  def seconds(self) -> float:
    """Duration in seconds."""
    return len(self.samples) / self.rate


def library(name: str) -> Any:
  """Import soundfile or soxr. Raises DataError, which names the extra, if it is not installed."""
  try:
    return importlib.import_module(name)
  except (ImportError, OSError) as error:  # OSError: soundfile is there, and the C library that it loads is not
    raise DataError(f"Sound needs the package {name} ({error}). Install it: pip install 'mmjax[sound]'.") from error


def resampled(clip: Clip, rate: int) -> Clip:
  """Change the rate of a clip, by soxr in its high quality. A clip that has the rate is returned unchanged.

  Example:
    >>> import numpy as np
    >>> len(resampled(Clip(np.zeros(800, np.float32), 8000), 8000).samples)
    800
  """
  if clip.rate == rate:
    return clip
  samples = library("soxr").resample(clip.samples, clip.rate, rate, quality="HQ")
  return Clip(samples if len(samples) else np.zeros(1, np.float32), rate)


def with_loudness(samples: Float[np.ndarray, "samples"], decibels: float) -> Float[np.ndarray, "samples"]:
  """Scale samples so that their root mean square is `decibels` below or above full scale. Silence is returned as it is.

  The result may exceed -1 to 1. It is not clipped, because features are computed from it, and no file is written.
  """
  if np.abs(samples).max(initial=0.0) <= SILENT:
    return samples
  power = float(np.mean(np.square(samples, dtype=np.float64)))
  return samples * np.float32(10 ** (decibels / 20) / np.sqrt(power))


def fitted(samples: Float[np.ndarray, "samples"], length: int, start: int = 0) -> Float[np.ndarray, "length"]:
  """Cut `length` samples out from `start` on, with zeros after the end of the clip."""
  cut = samples[start : start + length]
  return cut if len(cut) == length else np.pad(cut, (0, length - len(cut)))


def trimmed(samples: Float[np.ndarray, "samples"], rate: int) -> Float[np.ndarray, "kept"]:
  """Cut off both ends where the power, averaged over 10 ms, is 30 dB below its largest. 20 ms of them are kept."""
  span = max(1, rate // 100)
  power = np.convolve(np.square(samples, dtype=np.float64), np.full(span, 1 / span), mode="same")
  loud = np.flatnonzero(power > max(power.max() * 1e-3, 1e-7))
  if not len(loud):
    return samples
  return samples[max(0, loud[0] - 2 * span) : loud[-1] + 2 * span]
