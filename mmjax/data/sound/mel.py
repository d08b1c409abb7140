"""Mel filters, windows and frames: the parts of a log-mel spectrogram, in NumPy."""

import functools
from typing import Literal

import numpy as np
from jaxtyping import Float

Scale = Literal["htk", "slaney"]
Triangles = Literal["hz", "mel", "bins"]
Shape = Literal["hann", "hann_symmetric", "hamming", "none"]
Edges = Literal["reflect", "zeros", "whole", "last"]


def mel_of_hz(hz: np.ndarray, scale: Scale) -> np.ndarray:
  """Convert frequencies in Hz to mels.

  "htk": 2595 log10(1 + f/700) (O'Shaughnessy 1987; the HTK book). "slaney": linear up to 1000 Hz, logarithmic above
  (the Auditory Toolbox of Slaney 1998; the default of librosa).
  """
  hz = np.asarray(hz, np.float64)
  if scale == "htk":
    return 2595 * np.log10(1 + hz / 700)
  return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1000) / 1000) / np.log(6.4))


def hz_of_mel(mel: np.ndarray, scale: Scale) -> np.ndarray:
  """Convert mels to frequencies in Hz."""
  mel = np.asarray(mel, np.float64)
  if scale == "htk":
    return 700 * (10 ** (mel / 2595) - 1)
  return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


@functools.lru_cache(maxsize=32)
def mel_filters(
  rate: int, fft: int, mels: int, low: float, high: float, scale: Scale, triangles: Triangles, area: bool
) -> Float[np.ndarray, "bins mels"]:
  """Matrix from a power spectrum to mel bands. The result is shared, and read-only.

  Args:
    rate: samples per second.
    fft: samples of the Fourier transform; the spectrum has fft // 2 + 1 bins.
    mels: number of bands.
    low, high: lowest and highest frequency in Hz.
    scale: formula of the mel scale, see `mel_of_hz`.
    triangles: domain in which the sides of the triangles are straight lines. "hz" (librosa), "mel" (Kaldi), or "bins":
      in Hz, with the corners rounded down to bins of the spectrum (python_speech_features).
    area: divide each band by its width in Hz, so that all have the same area (librosa's norm="slaney").
  """
  ends = mel_of_hz(np.array([low, high]), scale)
  mel_corners = np.linspace(ends[0], ends[1], mels + 2)
  corners = hz_of_mel(mel_corners, scale)
  frequencies = np.arange(fft // 2 + 1) * (rate / fft)
  if triangles == "mel":
    places, sides = mel_of_hz(frequencies, scale), mel_corners
  elif triangles == "bins":
    places, sides = np.arange(fft // 2 + 1, dtype=np.float64), np.floor((fft + 1) * corners / rate)
  else:
    places, sides = frequencies, corners
  left, middle, right = sides[:-2], sides[1:-1], sides[2:]
  with np.errstate(divide="ignore", invalid="ignore"):  # triangles of no width, by rounding: 0
    rising = (places[:, None] - left) / (middle - left)
    falling = (right - places[:, None]) / (right - middle)
  if triangles == "bins":  # two triangles with sides of no width meet in one bin
    up = (places[:, None] >= left) & (places[:, None] < middle)
    down = (places[:, None] >= middle) & (places[:, None] < right)
    filters = np.where(up, rising, np.where(down, falling, 0.0))
  else:
    filters = np.maximum(0.0, np.minimum(rising, falling))
  if area:
    filters = filters * (2 / (corners[2:] - corners[:-2]))
  filters.flags.writeable = False
  return filters


@functools.lru_cache(maxsize=32)
def window(length: int, shape: Shape) -> Float[np.ndarray, "length"]:
  """Weights of the samples of a frame. "hann" is periodic, "hann_symmetric" ends with 0, "hamming" is symmetric."""
  if shape == "none":
    weights = np.ones(length)
  elif shape == "hamming":
    weights = np.hamming(length)
  else:
    weights = np.hanning(length) if shape == "hann_symmetric" else np.hanning(length + 1)[:-1]
  weights.flags.writeable = False
  return weights


def num_frames(samples: int, length: int, hop: int, edges: Edges) -> int:
  """Number of frames of a clip, at least 1.

  Args:
    samples: length of the clip.
    length, hop, edges: as for `frames`.
  """
  if edges in ("reflect", "zeros"):
    return 1 + samples // hop
  beyond = max(0, samples - length)
  return 1 + (beyond // hop if edges == "whole" else -(-beyond // hop))


def frames(
  samples: Float[np.ndarray, "samples"], length: int, hop: int, edges: Edges
) -> Float[np.ndarray, "frames length"]:
  """Cut samples into overlapping frames.

  Args:
    samples: at least one.
    length, hop: samples of a frame, and between the starts of two.
    edges: "reflect" and "zeros" centre frame t on sample t * hop, with the clip mirrored or zeros beyond its ends
      (Whisper; librosa). "whole": frames inside the clip only (Kaldi). "last": the last frame is filled up with zeros
      (python_speech_features).
  """
  count = num_frames(len(samples), length, hop, edges)
  if edges in ("reflect", "zeros"):
    half = length // 2
    samples = np.pad(samples, half, mode="reflect" if edges == "reflect" and len(samples) > 1 else "constant")
  needed = (count - 1) * hop + length
  if len(samples) < needed:
    samples = np.pad(samples, (0, needed - len(samples)))
  return np.lib.stride_tricks.sliding_window_view(samples, length)[: needed - length + 1 : hop]
