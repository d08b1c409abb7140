"""Fuzz targets of videos."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_inputs import Target, mutated
from PIL import Image


def video(_: Path) -> Target:
  """Opened, sampled and decoded, as training does."""
  from mmjax.data import DataError, Video
  from mmjax.data.images.decoding import decode

  column = Video(frames=3, max_pixels=100_000, max_seconds=5.0, max_frames=100)

  def run(data: bytes) -> None:
    frames, _ = column.clip({"id": "r", "video": data}, None)
    for frame in frames:
      assert decode(frame).width * frame.height <= 100_000

  kinds = (("mp4", "libx264"), ("mp4", "mpeg4"), ("webm", "libvpx-vp9"), ("webm", "libvpx"), ("matroska", "libx264"))
  seeds = [*(_encoded(*kind) for kind in kinds), _animated("GIF"), _animated("WEBP")]
  return Target(seeds, mutated, run, (DataError,))


def _pixels() -> np.ndarray:
  return np.random.default_rng(0).integers(0, 255, (8, 16, 24, 3), dtype=np.uint8)


def _encoded(form: str, codec: str) -> bytes:
  import av

  data = io.BytesIO()
  with av.open(data, "w", format=form) as file:
    stream: Any = file.add_stream(codec, rate=25)
    stream.height, stream.width, stream.pix_fmt = 16, 24, "yuv420p"
    stream.codec_context.gop_size = 4
    for frame in _pixels():
      file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    file.mux(stream.encode())
  return data.getvalue()


def _animated(form: str) -> bytes:
  first, *others = map(Image.fromarray, _pixels())
  data = io.BytesIO()
  first.save(data, form, save_all=True, append_images=others, duration=40)
  return data.getvalue()
