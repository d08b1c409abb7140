"""Sound files for tests."""

import io

import numpy as np


def tone(seconds: float = 0.5, *, rate: int = 16000, hertz: float = 440.0, channels: int = 1) -> np.ndarray:
  """A decaying tone with some noise, float32 [n] or [n, channels]."""
  time = np.arange(int(seconds * rate)) / rate
  noise = np.random.default_rng(0).normal(size=(len(time), channels)) * 0.02
  samples = (np.sin(2 * np.pi * hertz * time) * np.exp(-2 * time))[:, None] * 0.5 + noise
  return (samples[:, 0] if channels == 1 else samples).astype(np.float32)


def encoded(samples: np.ndarray, form: str = "WAV", *, rate: int = 16000, codec: str | None = None) -> bytes:
  """The bytes of a file."""
  import soundfile

  data = io.BytesIO()
  soundfile.write(data, samples, rate, format=form, subtype=codec)
  return data.getvalue()
