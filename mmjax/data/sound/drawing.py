"""Drawing of a clip for a report: its spectrogram, and a player that needs no other file."""

import base64
import io
import struct

import numpy as np
from jaxtyping import Float
from PIL import Image

from mmjax.data.sound.features import Features

_SECONDS = 12.0
"""Longest part of a clip that a page holds: a second at 16 kHz takes 43 kB of HTML."""
_HEIGHT = 96
_COLOURS = np.array([[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]], np.float64)
"""Colours of quiet to loud, after Matplotlib's magma."""


def player(samples: Float[np.ndarray, "samples"], features: Features) -> str:
  """HTML with the spectrogram of a clip and a player of its first 12 seconds.

  Args:
    samples: the clip, at the rate of the features.
    features: features that are drawn, over time from left to right.
  """
  shown = samples[: int(_SECONDS * features.rate)]
  picture = base64.b64encode(spectrogram(features(shown))).decode()
  sound = base64.b64encode(wav(shown, features.rate)).decode()
  size, seconds = f"width: 100%; height: {_HEIGHT}px", len(samples) / features.rate
  return (
    f'<img style="{size}" alt="spectrogram of {seconds:.2f} s" src="data:image/png;base64,{picture}">'
    f'<audio controls preload="none" style="width: 100%" src="data:audio/wav;base64,{sound}"></audio>'
  )


def spectrogram(values: Float[np.ndarray, "frames size"]) -> bytes:
  """Features as a PNG, the lowest band at the bottom, from the darkest colour (least) to the brightest."""
  low, high = float(values.min()), float(values.max())
  level = (values.T[::-1] - low) / max(high - low, 1e-6) * (len(_COLOURS) - 1)
  below = np.minimum(level.astype(int), len(_COLOURS) - 2)
  share = (level - below)[..., None]
  pixels = (_COLOURS[below] * (1 - share) + _COLOURS[below + 1] * share).astype(np.uint8)
  width = max(32, min(480, 2 * values.shape[0]))
  data = io.BytesIO()
  Image.fromarray(pixels).resize((width, _HEIGHT), Image.Resampling.BILINEAR).save(data, "PNG")
  return data.getvalue()


def wav(samples: Float[np.ndarray, "samples"], rate: int) -> bytes:
  """Samples as a WAV file of 16 bits. Samples beyond full scale are clipped."""
  body = (np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes()
  header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(body), b"WAVE", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16,
                       b"data", len(body))  # fmt: skip
  return header + body
