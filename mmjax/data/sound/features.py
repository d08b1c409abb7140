"""Features of sound, one row per frame: log-mel spectrograms as of several programs, and cepstra (MFCC)."""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

from mmjax.data.sound.mel import Edges, Scale, Shape, Triangles, frames, mel_filters, num_frames, window
from mmjax.kinds import Kind


class Features(Kind):
  """Base of the features. They are computed in float64 from one clip, without randomness.

  Attributes:
    rate: samples per second of the clips that they take.
  """

  rate: int

  @property
  def size(self) -> int:
    """Number of values per frame."""
    raise NotImplementedError

  def frames(self, samples: int) -> int:
    """Number of frames of a clip with this many samples."""
    raise NotImplementedError

  @property
  def padding(self) -> float:
    """Value of the frames after the end of a clip."""
    return 0.0

  def __call__(self, samples: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "frames size"]:
    """Compute the features of a clip, in float32."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LogMel(Features):
  """Logarithm of the power in mel bands. The defaults are those of `librosa.feature.melspectrogram` at 16 kHz."""

  rate: int = 16000
  """Samples per second."""
  mels: int = 64
  """Number of bands."""
  window: int = 400
  """Samples of a frame (25 ms)."""
  hop: int = 160
  """Samples between the starts of two frames (10 ms)."""
  fft: int = 512
  """Samples of the Fourier transform. Frames are filled up with zeros."""
  low: float = 0.0
  """Lowest frequency in Hz."""
  high: float | None = None
  """Highest frequency in Hz. None: half of the rate."""
  scale: Scale = "slaney"
  """Mel scale: htk is 2595 log10(1 + f/700); slaney is linear up to 1000 Hz."""
  triangles: Triangles = "hz"
  """Domain in which the bands are triangles: hz (librosa), mel (Kaldi), bins (python_speech_features)."""
  area: bool = True
  """Divide each band by its width in Hz (librosa's norm="slaney")."""
  shape: Shape = "hann"
  """Window: hann (periodic), hann_symmetric, hamming, none."""
  edges: Edges = "zeros"
  """Frames at the ends: reflect and zeros (centred), whole (inside the clip), last (filled up)."""
  preemphasis: float = 0.0
  """a in x[t] - a x[t-1]; usually 0.97. 0: none."""
  by_frame: bool = False
  """Subtract the mean of each frame, and apply pre-emphasis to each frame by itself (Kaldi), not to the clip."""
  average: bool = False
  """Divide the power by `fft` (python_speech_features)."""
  logarithm: Literal["ln", "log10", "db"] = "ln"
  """Natural or decimal logarithm, or decibels: ten times the decimal logarithm (CLAP)."""
  floor: float = 1e-10
  """Least power of a band, before the logarithm."""

  def __post_init__(self) -> None:
    if not 1 <= self.window <= self.fft:
      raise ValueError(f"window is {self.window}: it must lie between 1 and fft={self.fft}")
    if self.hop < 1 or self.mels < 1 or self.floor <= 0:
      raise ValueError(f"hop={self.hop}, mels={self.mels} and floor={self.floor} must be above 0")
    if not 0 <= self.low < self.highest <= self.rate / 2:
      raise ValueError(f"low={self.low} and high={self.highest} must be ascending, between 0 and {self.rate / 2:g} Hz")

  @property
  def highest(self) -> float:
    """Highest frequency in Hz."""
    return self.rate / 2 if self.high is None else self.high

  @property
  def size(self) -> int:
    return self.mels

  def frames(self, samples: int) -> int:
    return num_frames(samples, self.window, self.hop, self.edges)

  def power(self, samples: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "frames bins"]:
    """Power spectrum of the frames, in float64."""
    samples = np.asarray(samples, np.float64)
    if self.preemphasis and not self.by_frame:
      samples = np.append(samples[:1], samples[1:] - self.preemphasis * samples[:-1])
    cut = frames(samples, self.window, self.hop, self.edges)
    if self.by_frame:
      cut = cut - cut.mean(axis=1, keepdims=True)
      before = np.concatenate([cut[:, :1], cut[:, :-1]], axis=1)
      cut = cut - self.preemphasis * before
    spectrum = np.fft.rfft(cut * window(self.window, self.shape), self.fft)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    return power / self.fft if self.average else power

  def mel(self, power: Float[np.ndarray, "frames bins"]) -> Float[np.ndarray, "frames mels"]:
    """Logarithm of the power in the bands, in float64."""
    filters = mel_filters(self.rate, self.fft, self.mels, self.low, self.highest, self.scale, self.triangles, self.area)
    bands = np.maximum(power @ filters, self.floor)
    if self.logarithm == "ln":
      return np.log(bands)
    return np.log10(bands) * (10.0 if self.logarithm == "db" else 1.0)

  def __call__(self, samples: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "frames size"]:
    return self.mel(self.power(samples)).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class WhisperMel(Features):
  """Features of Whisper (Radford et al. 2022, section 2.2): log10, at least the largest value less 8, then (x + 4) / 4.

  One frame is 10 ms. A clip of n samples has n // 160 frames, and at least one. Whisper itself pads clips with zeros to
  30 s first (480,000 samples, 3,000 frames), so that the largest value is of the padded clip.
  """

  rate: int = 16000
  """Samples per second."""
  mels: int = 80
  """Number of bands: 80, or 128 for large-v3."""

  @property
  def size(self) -> int:
    return self.mels

  def frames(self, samples: int) -> int:
    return max(1, samples // 160)

  def __call__(self, samples: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "frames size"]:
    settings = LogMel(self.rate, self.mels, window=400, hop=160, fft=400, edges="reflect", logarithm="log10")
    values = settings.mel(settings.power(samples))[: self.frames(len(samples))]
    values = np.maximum(values, values.max() - 8.0)
    return ((values + 4.0) / 4.0).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Fbank(Features):
  """Filter banks of Kaldi as AST uses them (Gong et al. 2021, section 2.1), normalised: (x - mean) / (2 std).

  Natural logarithm of 25 ms Hann frames at 10 ms, each without its mean and with pre-emphasis of 0.97. The samples are
  floats of -1 to 1, not in the scale of int16 as in Kaldi.
  """

  rate: int = 16000
  """Samples per second."""
  mels: int = 128
  """Number of bands."""
  mean: float = -4.2677393
  """Mean of the features (AudioSet)."""
  std: float = 4.5689974
  """Standard deviation of the features (AudioSet)."""

  @property
  def size(self) -> int:
    return self.mels

  @property
  def padding(self) -> float:
    return -self.mean / (2 * self.std)  # AST pads with 0 before it normalises

  def frames(self, samples: int) -> int:
    return self._settings.frames(samples)

  @property
  def _settings(self) -> LogMel:
    unit = self.rate // 100
    length = unit * 5 // 2
    return LogMel(
      rate=self.rate,
      mels=self.mels,
      window=length,
      hop=unit,
      fft=1 << (length - 1).bit_length(),
      low=20.0,
      scale="htk",
      triangles="mel",
      area=False,
      shape="hann_symmetric",
      edges="whole",
      preemphasis=0.97,
      by_frame=True,
      floor=float(np.finfo(np.float32).eps),
    )

  def __call__(self, samples: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "frames size"]:
    settings = self._settings
    return ((settings.mel(settings.power(samples)) - self.mean) / (2 * self.std)).astype(np.float32)


SPEECH = LogMel(
  mels=26,
  scale="htk",
  triangles="bins",
  area=False,
  shape="none",
  edges="last",
  preemphasis=0.97,
  average=True,
  floor=float(np.finfo(np.float64).eps),
)
"""Log-mel features of `python_speech_features.logfbank`."""


@dataclasses.dataclass(frozen=True)
class Mfcc(Features):
  """Cepstra: the orthonormal DCT-II of log-mel features (Davis and Mermelstein 1980), with their changes over time.

  The defaults are those of `python_speech_features.mfcc` without energy, then delta and delta-delta.
  """

  mel: LogMel = SPEECH
  """Log-mel features. librosa's cepstra are of LogMel(logarithm="log10") times 10."""
  coefficients: int = 13
  """Number of coefficients, from the 0th on."""
  lifter: int = 22
  """L in 1 + L/2 sin(pi n / L), the weight of coefficient n. 0: no weights."""
  deltas: Literal[0, 1, 2] = 2
  """1: append the delta; 2: append delta and delta-delta."""
  delta_width: int = 2
  """Frames on either side from which a delta is computed."""
  energy: bool = False
  """Replace the 0th coefficient by the logarithm of the power of the frame."""

  def __post_init__(self) -> None:
    if not 1 <= self.coefficients <= self.mel.mels:
      raise ValueError(f"coefficients is {self.coefficients}: it must lie between 1 and mels={self.mel.mels}")
    if self.delta_width < 1:
      raise ValueError(f"delta_width is {self.delta_width}: it must be at least 1")

  @property
  def rate(self) -> int:  # type: ignore[override]
    """Samples per second."""
    return self.mel.rate

  @property
  def size(self) -> int:
    return self.coefficients * (1 + self.deltas)

  def frames(self, samples: int) -> int:
    return self.mel.frames(samples)

  def __call__(self, samples: Float[np.ndarray, "samples"]) -> Float[np.ndarray, "frames size"]:
    power = self.mel.power(samples)
    cepstra = self.mel.mel(power) @ dct(self.mel.mels)[:, : self.coefficients]
    if self.lifter:
      cepstra = cepstra * (1 + self.lifter / 2 * np.sin(np.pi * np.arange(self.coefficients) / self.lifter))
    if self.energy:
      cepstra[:, 0] = np.log(np.maximum(power.sum(axis=1), self.mel.floor))
    parts = [cepstra]
    for _ in range(self.deltas):
      parts.append(delta(parts[-1], self.delta_width))
    return np.concatenate(parts, axis=1).astype(np.float32)


def dct(size: int) -> Float[np.ndarray, "size size"]:
  """Matrix of the orthonormal DCT-II: row vectors times it are the coefficients."""
  n, k = np.arange(size)[:, None], np.arange(size)[None]
  matrix = np.cos(np.pi * (2 * n + 1) * k / (2 * size)) * np.sqrt(2 / size)
  matrix[:, 0] /= np.sqrt(2)
  return matrix


def delta(values: Float[np.ndarray, "frames size"], width: int) -> Float[np.ndarray, "frames size"]:
  """Slope of the line through 2 width + 1 frames (the HTK book, section 5.9). The first and last frame are repeated."""
  padded = np.pad(values, ((width, width), (0, 0)), mode="edge")
  count = len(values)
  steps = range(1, width + 1)
  slopes = (n * (padded[width + n : width + n + count] - padded[width - n : width - n + count]) for n in steps)
  return sum(slopes, np.zeros_like(values)) / (2 * sum(n * n for n in steps))


def cmvn(values: Float[np.ndarray, "frames size"], *, variance: bool = True) -> Float[np.ndarray, "frames size"]:
  """Subtract the mean over the frames of a clip, and divide by the standard deviation (cepstral normalisation).

  A feature that is the same in all frames becomes 0.
  """
  wide = np.asarray(values, np.float64)
  centred = wide - wide.mean(axis=0)
  if not variance:
    return centred.astype(np.float32)
  deviation = centred.std(axis=0)
  return (centred / np.where(deviation > 1e-6, deviation, np.inf)).astype(np.float32)
