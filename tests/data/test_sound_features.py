"""Features of sound against slow loops over their formulas."""

import math

import numpy as np
import pytest

from mmjax.data.sound.features import SPEECH, Fbank, LogMel, Mfcc, WhisperMel, cmvn, dct, delta
from mmjax.data.sound.mel import frames, hz_of_mel, mel_filters, mel_of_hz, num_frames
from tests.data.sounds import tone

X = tone(0.1)


def slow_mel(hz, scale):
  if scale == "htk":
    return 2595 * math.log10(1 + hz / 700)
  return hz / (200 / 3) if hz < 1000 else 15 + math.log(hz / 1000) / (math.log(6.4) / 27)


def slow_hz(mel, scale):
  if scale == "htk":
    return 700 * (10 ** (mel / 2595) - 1)
  return mel * 200 / 3 if mel < 15 else 1000 * math.exp(math.log(6.4) / 27 * (mel - 15))


def slow_filter(c, band, bin_):
  """Weight of one bin of the spectrum in one band."""
  low, high = slow_mel(c.low, c.scale), slow_mel(c.highest, c.scale)
  mels = [low + (high - low) * (band + n) / (c.mels + 1) for n in range(3)]
  hz = [slow_hz(mel, c.scale) for mel in mels]
  place, corners = bin_ * c.rate / c.fft, hz
  if c.triangles == "mel":
    place, corners = slow_mel(place, c.scale), mels
  elif c.triangles == "bins":
    place, corners = bin_, [math.floor((c.fft + 1) * f / c.rate) for f in hz]
  a, b, d = corners
  if a < place < b:
    weight = (place - a) / (b - a)
  elif b <= place < d:
    weight = (d - place) / (d - b)
  else:
    weight = 0.0
  return weight * 2 / (hz[2] - hz[0]) if c.area else weight


def slow_window(c, n):
  return {
    "hann": 0.5 - 0.5 * math.cos(2 * math.pi * n / c.window),
    "hann_symmetric": 0.5 - 0.5 * math.cos(2 * math.pi * n / (c.window - 1)),
    "hamming": 0.54 - 0.46 * math.cos(2 * math.pi * n / (c.window - 1)),
    "none": 1.0,
  }[c.shape]


def slow_sample(c, x, t):
  if c.edges == "reflect":
    t = -t if t < 0 else 2 * (len(x) - 1) - t if t >= len(x) else t
  return x[t] if 0 <= t < len(x) else 0.0


def slow_power(c, x, frame):
  x = [float(value) for value in x]
  if c.preemphasis and not c.by_frame:
    x = [x[0], *(x[t] - c.preemphasis * x[t - 1] for t in range(1, len(x)))]
  start = frame * c.hop - (c.window // 2 if c.edges in ("reflect", "zeros") else 0)
  cut = [slow_sample(c, x, start + n) for n in range(c.window)]
  if c.by_frame:
    mean = sum(cut) / len(cut)
    cut = [value - mean for value in cut]
    cut = [cut[n] - c.preemphasis * cut[max(n - 1, 0)] for n in range(len(cut))]
  cut = [value * slow_window(c, n) for n, value in enumerate(cut)]
  angle = -2j * np.pi * np.outer(np.arange(c.fft // 2 + 1), np.arange(c.window)) / c.fft
  return np.abs(np.exp(angle) @ cut) ** 2 / (c.fft if c.average else 1)


def slow_log_mel(c, x, frame):
  power = slow_power(c, x, frame)
  log = math.log if c.logarithm == "ln" else math.log10
  bands = [sum(power[k] * slow_filter(c, band, k) for k in range(len(power))) for band in range(c.mels)]
  return np.array([log(max(band, c.floor)) for band in bands])


@pytest.mark.parametrize(
  "settings",
  [
    LogMel(mels=8),
    LogMel(mels=8, scale="htk", area=False, edges="reflect", shape="hamming", logarithm="log10", low=50, high=7000),
    LogMel(rate=8000, mels=5, window=199, hop=80, fft=256, preemphasis=0.97, edges="whole"),
    SPEECH,
    Fbank()._settings,
  ],
)
def test_log_mel_is_the_formula(settings):
  found = settings(X)
  assert found.dtype == np.float32 and found.shape == (settings.frames(len(X)), settings.size)
  for frame in {0, 3, len(found) - 1}:
    np.testing.assert_allclose(found[frame], slow_log_mel(settings, X, frame), atol=2e-6 * np.abs(found).max())


def test_whisper_keeps_the_range_below_the_loudest_band():
  short = X[:640]
  found = WhisperMel()(short)
  c = LogMel(mels=80, window=400, hop=160, fft=400, edges="reflect", logarithm="log10")
  slow = np.stack([slow_log_mel(c, short, frame) for frame in range(len(short) // 160)])  # without the last frame
  slow = (np.maximum(slow, slow.max() - 8) + 4) / 4
  np.testing.assert_allclose(found, slow, atol=1e-5)
  assert np.ptp(WhisperMel()(np.pad(X, (0, 1000)))) == pytest.approx(2)  # silence: 8 / 4 below the loudest


def test_fbank_is_normalised_and_padded_as_ast_is():
  settings = Fbank()
  slow = (slow_log_mel(settings._settings, X, 2) + 4.2677393) / (2 * 4.5689974)
  np.testing.assert_allclose(settings(X)[2], slow, atol=1e-5)
  assert settings.padding == pytest.approx(4.2677393 / (2 * 4.5689974))


def test_cepstra_are_the_dct_of_the_log_mel_features():
  settings = Mfcc(energy=True)
  found, log_mel = settings(X), SPEECH(X).astype(np.float64)
  assert found.shape == (SPEECH.frames(len(X)), 39)
  for k in range(1, 13):
    scale = math.sqrt(2 / 26) * (1 + 11 * math.sin(math.pi * k / 22))
    slow = [sum(row[n] * math.cos(math.pi * k * (2 * n + 1) / 52) for n in range(26)) * scale for row in log_mel]
    np.testing.assert_allclose(found[:, k], slow, atol=1e-4)
  np.testing.assert_allclose(found[0, 0], math.log(slow_power(SPEECH, X, 0).sum()), atol=1e-5)
  np.testing.assert_allclose(found[:, 13:26], delta(found[:, :13], 2), atol=1e-5)
  np.testing.assert_allclose(found[:, 26:], delta(found[:, 13:26], 2), atol=1e-5)
  assert Mfcc(deltas=0).size == 13


def test_the_dct_is_orthonormal():
  np.testing.assert_allclose(dct(20) @ dct(20).T, np.eye(20), atol=1e-12)


def test_a_delta_is_a_slope():
  line = 3.0 * np.arange(9)[:, None]
  np.testing.assert_allclose(delta(line, 2)[2:-2], 3.0)
  slow = [sum(n * (line[min(t + n, 8)] - line[max(t - n, 0)]) for n in (1, 2)) / 10 for t in range(9)]
  np.testing.assert_allclose(delta(line, 2), slow)


def test_normalisation_leaves_mean_0_and_deviation_1_and_constants_0():
  values = np.random.default_rng(0).normal(3, 5, (50, 4)).astype(np.float32)
  values[:, 2] = -23.0
  found = cmvn(values)
  np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
  np.testing.assert_allclose(found.std(axis=0), [1, 1, 0, 1], atol=1e-5)
  np.testing.assert_allclose(cmvn(values, variance=False), values - values.mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
def test_mels_are_named_and_invertible(scale):
  hz = np.array([0.0, 60, 999, 1000, 1001, 7999])
  np.testing.assert_allclose(hz_of_mel(mel_of_hz(hz, scale), scale), hz, atol=1e-8)
  assert mel_of_hz(np.array(1000.0), scale) == pytest.approx({"htk": 999.9855, "slaney": 15}[scale], abs=1e-3)


@pytest.mark.parametrize("edges", ["reflect", "zeros", "whole", "last"])
@pytest.mark.parametrize("samples", [1, 2, 39, 40, 41, 55, 56, 400])
def test_every_clip_has_the_frames_that_are_promised(edges, samples):
  found = frames(np.ones(samples), 40, 16, edges)
  assert found.shape == (num_frames(samples, 40, 16, edges), 40) and found.any()


@pytest.mark.parametrize("features", [LogMel(), WhisperMel(), Fbank(), Mfcc()])
@pytest.mark.parametrize("samples", [1, 100, 1600])
def test_silence_and_short_clips_have_finite_features(features, samples):
  found = features(np.zeros(samples, np.float32))
  assert found.shape == (features.frames(samples), features.size) and np.isfinite(found).all()


def test_filters_are_shared_and_cannot_be_changed():
  first = mel_filters(16000, 512, 8, 0.0, 8000.0, "htk", "hz", True)
  assert first is mel_filters(16000, 512, 8, 0.0, 8000.0, "htk", "hz", True)
  with pytest.raises(ValueError):
    first[0, 0] = 1


@pytest.mark.parametrize(
  "make",
  [
    lambda: LogMel(window=600),
    lambda: LogMel(high=9000),
    lambda: LogMel(low=300, high=200),
    lambda: Mfcc(coefficients=27),
    lambda: Mfcc(delta_width=0),
  ],
)
def test_settings_that_cannot_be_are_refused(make):
  with pytest.raises(ValueError, match="must"):
    make()
