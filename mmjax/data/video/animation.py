"""GIF, animated WebP, and frames that are images of their own: folders, lists and arrays."""

import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmjax.data.errors import DataError
from mmjax.data.images.decoding import ImageLike, decode, open_image
from mmjax.data.images.modes import to_rgb
from mmjax.data.video.headers import gif_durations, webp_durations
from mmjax.data.video.limits import Limits

FRAMES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Extensions of the frames in a folder."""
_UNSTATED = 100
"""Milliseconds of a frame without a duration, or with one of up to 10 ms, as in browsers."""


class Animation:
  """A GIF or animated WebP. A frame is drawn on those before it, so that all up to the last wanted one are decoded.

  Args:
    data: the file.
    form: "GIF" or "WEBP".
    record: name of the record in error messages.
    limits: limits that are checked before frames are decoded.

  Attributes:
    times: times of the frames in seconds, ascending from 0.
    seconds: duration.

  Raises: DataError: the file cannot be read, is truncated, has no frames, or exceeds a limit.
  """

  def __init__(self, data: bytes, form: str, record: str, limits: Limits):
    durations = (gif_durations if form == "GIF" else webp_durations)(data, record)
    if not durations:
      raise DataError(f"{record}: has no frames. Replace it or remove it.")
    self._data, self._form, self._record, self._limits = data, form, record, limits
    with self._open() as image:
      limits.check_size(*image.size, record)
    self.times, self.seconds = kept_times([(d if d > 10 else _UNSTATED) / 1000 for d in durations], record, limits)

  def __enter__(self) -> "Animation":
    return self

  def __exit__(self, *_: object) -> None:
    pass

  def read(self, places: Sequence[int]) -> Iterator[Image.Image]:
    """Decode frames, in RGB or RGBA. `places` are numbers of the frames, ascending; one may be there twice."""
    with self._open() as image:
      for place, again in itertools.groupby(places):
        try:
          image.seek(place)
          frame = to_rgb(image, self._record).copy()
        except DataError:
          raise
        except Exception as error:  # decoders raise many types of exceptions
          raise DataError(
            f"{self._record}: frame {place} of the {self._form} is corrupt ({error!r}). Replace it or remove it."
          ) from error
        for _ in again:
          yield frame

  def _open(self) -> Image.Image:
    return open_image(self._data, record=self._record, max_pixels=self._limits.max_pixels)


class Stills:
  """Frames that are images of their own. Only those that are asked for are decoded.

  Args:
    frames: encoded images, paths, Pillow images or arrays, or a uint8 array [frames, height, width, 3].
    rate: frames per second.
    record: name of the record in error messages.
    limits: limits that are checked before frames are decoded.

  Attributes:
    times: times of the frames in seconds, ascending from 0.
    seconds: duration.

  Raises: DataError: there are no frames, or more than a limit.
  """

  def __init__(self, frames: Sequence[ImageLike] | np.ndarray, rate: float, record: str, limits: Limits):
    if not len(frames):
      raise DataError(f"{record}: has no frames. Replace it or remove it.")
    self._frames, self._record, self._limits = frames, record, limits
    self.times, self.seconds = kept_times([1 / rate] * len(frames), record, limits)

  def __enter__(self) -> "Stills":
    return self

  def __exit__(self, *_: object) -> None:
    pass

  def read(self, places: Sequence[int]) -> Iterator[Image.Image]:
    """Decode frames, in RGB or RGBA. `places` are numbers of the frames, ascending; one may be there twice."""
    for place, again in itertools.groupby(places):
      frame, name = self._frames[place], f"{self._record}, frame {place}"
      if isinstance(frame, (str, os.PathLike)):
        name = str(frame)
      image = decode(frame, record=name, max_pixels=self._limits.max_pixels)
      for _ in again:
        yield image


def frames_of_folder(folder: Path, record: str) -> list[Path]:
  """Images of a folder in the order of their names, in which 9 comes before 10.

  Args:
    folder: the folder.
    record: name of the record in error messages.
  Raises: DataError: it cannot be read, or has another file, which is named. Hidden files are left out.
  """
  try:
    names = [path for path in folder.iterdir() if not path.name.startswith(".")]
  except OSError as error:
    raise DataError(f"{record}: cannot read {folder}: {error.strerror}. Restore it or remove it.") from error
  wrong = sorted(path for path in names if path.suffix.lower() not in FRAMES)
  if wrong:
    raise DataError(f"{record}: {wrong[0]} is not a frame ({', '.join(FRAMES)}). Move it away.")
  return sorted(names, key=lambda path: _natural(path.name))


def _natural(name: str) -> list[Any]:
  """Key that orders numbers in names by value: the pieces are text, number, text, ..."""
  pieces = re.split(r"(\d+)", name)
  return [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)] + [name]


def kept_times(durations: Sequence[float], record: str, limits: Limits) -> tuple[np.ndarray, float]:
  """Times of the frames within the limits, and the duration of these.

  Args:
    durations: seconds that each frame is shown.
    record: name of the record in error messages.
    limits: largest duration and number of frames.
  Raises: DataError: the clip is longer, with longer="refuse".
  """
  ends = np.cumsum(durations).round(6)
  times = np.concatenate([[0.0], ends[:-1]])
  kept = min(int(np.searchsorted(times, limits.max_seconds)), limits.max_frames)
  if kept < len(times) and limits.longer == "refuse":
    raise limits.too_long(record, f"{len(times)} frames and {ends[-1]:.6g} s")
  return times[:kept], float(ends[kept - 1])
