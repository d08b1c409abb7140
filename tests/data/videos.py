"""Video files for tests."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image


def clip(frames: int = 40, *, height: int = 24, width: int = 32) -> np.ndarray:
  """Frames whose grey level is 6 times their number, with a bright corner at the top left, uint8 [frames, h, w, 3]."""
  pixels = np.empty((frames, height, width, 3), np.uint8)
  pixels[:] = (6 * np.arange(frames) % 240)[:, None, None, None]
  pixels[:, : height // 2, : width // 2] = 255
  return pixels


def number(frame: Any) -> int:
  """Number of a frame of `clip`, by its grey level at the bottom right."""
  return round(float(np.asarray(frame)[-4:, -4:, :3].mean()) / 6)


def encoded(
  pixels: np.ndarray, form: str = "mp4", codec: str = "libx264", *, rate: int = 25, gop: int = 10, rotated: int = 0
) -> bytes:
  """The bytes of an MP4, WebM or Matroska file."""
  import av

  data = io.BytesIO()
  with av.open(data, "w", format=form) as file:
    stream: Any = file.add_stream(codec, rate=rate)
    stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
    stream.codec_context.gop_size = gop
    if rotated:
      stream.set_display_rotation(rotated)
    for frame in pixels:
      file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    file.mux(stream.encode())
  return data.getvalue()


def animated(pixels: np.ndarray, form: str = "WEBP", durations: Sequence[int] | int = 40) -> bytes:
  """The bytes of a GIF or animated WebP."""
  first, *others = map(Image.fromarray, pixels)
  data, exact = io.BytesIO(), {"lossless": True} if form == "WEBP" else {}
  first.save(data, form, save_all=True, append_images=others, duration=durations, **exact)
  return data.getvalue()
