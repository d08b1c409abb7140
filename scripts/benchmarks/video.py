"""Twelve frames of a clip: this reader beside plain recipes. Prints a line of JSON per clip and recipe.

  python scripts/benchmarks/video.py [--seconds 10] [--repeats 5]

Clips are moving noise, 320 x 240 at 25 frames a second, by x264 as it comes (with B-frames), with a keyframe every
12, 50 or 250 frames (its default). Recipes: `mmjax` (open_video, the middles of 12 equal segments), `pyav_all` (decode
everything, keep 12: what torchvision's read_video does), `pyav_seek` (seek to each time, decode from the keyframe
before it), `opencv_seek` (CAP_PROP_POS_FRAMES). Milliseconds of processor time a clip, one thread each, the best of the
repeats; and the largest difference of a frame from `pyav_all`.
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"  # before OpenCV is imported

import av
import cv2
import numpy as np

from mmjax.data.video.reading import open_video
from mmjax.data.video.sampling import sampled

COUNT, RATE = 12, 25


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--seconds", type=int, default=10)
  parser.add_argument("--repeats", type=int, default=5)
  options = parser.parse_args()
  cv2.setNumThreads(1)
  for keyframes in (12, 50, 250):
    data = clip(options.seconds * RATE, keyframes)
    places = chosen(options.seconds * RATE)
    expected = pyav_all(data, places)
    for recipe in (ours, pyav_all, pyav_seek, opencv_seek):
      found = recipe(data, places)
      wrong = max(float(np.abs(a.astype(int) - b).mean()) for a, b in zip(found, expected, strict=True))
      best = min(measured(recipe, data, places) for _ in range(options.repeats))
      name = "mmjax" if recipe is ours else recipe.__name__
      said = {"keyframes": keyframes, "bytes": len(data), "recipe": name, "ms": round(1000 * best, 2)}
      print(json.dumps(said | {"difference": round(wrong, 3)}), flush=True)


def measured(recipe: Callable[..., Any], data: bytes, places: list[int]) -> float:
  start = time.process_time()
  recipe(data, places)
  return time.process_time() - start


def clip(frames: int, keyframes: int) -> bytes:
  """An MP4 of H.264."""
  rng, data = np.random.default_rng(0), io.BytesIO()
  noise = cv2.resize(rng.integers(0, 255, (60, 160, 3), dtype=np.uint8), (640, 240), interpolation=cv2.INTER_CUBIC)
  with av.open(data, "w", format="mp4") as file:
    stream: Any = file.add_stream("libx264", rate=RATE)
    stream.height, stream.width, stream.pix_fmt = 240, 320, "yuv420p"
    stream.codec_context.gop_size = keyframes
    stream.codec_context.options = {"sc_threshold": "0"}  # no keyframes besides
    for number in range(frames):
      shown = np.ascontiguousarray(np.roll(noise, 2 * number, axis=1)[:, :320])
      file.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
    file.mux(stream.encode())
  return data.getvalue()


def chosen(frames: int) -> list[int]:
  return sampled(np.arange(frames) / RATE, frames / RATE, COUNT, "uniform", 1.0, None).tolist()


def ours(data: bytes, places: list[int]) -> list[np.ndarray]:
  with open_video(data) as video:
    found = sampled(video.times, video.seconds, COUNT, "uniform", 1.0, None).tolist()
    assert found == places
    return [np.asarray(frame) for frame in video.read(found)]


def pyav_all(data: bytes, places: list[int]) -> list[np.ndarray]:
  with av.open(io.BytesIO(data)) as file:
    one_thread(file)
    frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
  return [frames[place] for place in places]


def pyav_seek(data: bytes, places: list[int]) -> list[np.ndarray]:
  found = []
  with av.open(io.BytesIO(data)) as file:
    stream = one_thread(file)
    tick = 1 / RATE / stream.time_base
    for place in places:
      wanted = round(place * tick)
      file.seek(wanted, stream=stream)
      frame = next(frame for frame in file.decode(stream) if frame.pts >= wanted)
      found.append(frame.to_ndarray(format="rgb24"))
  return found


def opencv_seek(data: bytes, places: list[int]) -> list[np.ndarray]:
  found = []
  with tempfile.NamedTemporaryFile(suffix=".mp4") as file:  # OpenCV reads no bytes
    file.write(data)
    file.flush()
    capture = cv2.VideoCapture(file.name)
    for place in places:
      capture.set(cv2.CAP_PROP_POS_FRAMES, place)
      found.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    capture.release()
  return found


def one_thread(file: Any) -> Any:
  stream = file.streams.video[0]
  stream.thread_type, stream.codec_context.thread_count = "NONE", 1
  return stream


if __name__ == "__main__":
  main()
