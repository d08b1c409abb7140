"""Opening of a video of any kind. What its header claims is checked before frames are decoded."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mmjax.data.downloads import refused
from mmjax.data.errors import DataError
from mmjax.data.images.decoding import ImageLike
from mmjax.data.images.files import read_image_file
from mmjax.data.video.animation import Animation, Stills, frames_of_folder
from mmjax.data.video.container import Container
from mmjax.data.video.headers import ANIMATIONS, FORMATS, check_complete, video_format
from mmjax.data.video.limits import MAX_BYTES, Limits

DEFAULT = Limits()
VideoLike = bytes | str | os.PathLike | np.ndarray | Sequence[ImageLike]


class OpenVideo(Protocol):
  """A video whose frames are decoded on demand. It is a context manager, which closes the file.

  Attributes:
    times: times of the frames in seconds, ascending from 0.
    seconds: duration.
  """

  times: np.ndarray
  seconds: float

  def __enter__(self) -> "OpenVideo": ...

  def __exit__(self, *_: object) -> None: ...

  def read(self, places: Sequence[int]) -> Iterator[Image.Image]:
    """Decode the frames with these numbers (ascending; one may be there twice), in RGB or RGBA, one at a time."""
    ...


def open_video(
  video: VideoLike, *, record: str = "the video", limits: Limits = DEFAULT, frame_rate: float = 25.0
) -> OpenVideo:
  """Open a video.

  Args:
    video: encoded bytes (MP4, WebM, MKV, GIF, animated WebP); the path of such a file, or of a folder of images; a
      sequence of images; or a uint8 array [frames, height, width, 3].
    record: name of the video in error messages.
    limits: largest size, duration and number of frames.
    frame_rate: frames per second of a folder, a sequence or an array, which do not say it.
  Raises:
    DataError: the video cannot be read, is truncated, has no frames, exceeds a limit, or needs a codec that is missing.
      The message names the record.

  Example:
    >>> import numpy as np
    >>> with open_video(np.zeros((50, 8, 8, 3), np.uint8)) as video:
    ...   print(video.seconds, [frame.size for frame in video.read([0, 49])])
    2.0 [(8, 8), (8, 8)]
  """
  if isinstance(video, np.ndarray):
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] not in (3, 4):
      raise DataError(
        f"{record}: an array of {video.dtype} {list(video.shape)} is not a video; give uint8 [frames, height, width, "
        "3]."
      )
    return Stills(video, frame_rate, record, limits)
  if isinstance(video, (str, os.PathLike)):
    path = Path(video)
    if path.is_dir():
      return Stills(frames_of_folder(path, record), frame_rate, record, limits)
    video = read_image_file(path, MAX_BYTES, otherwise="remove it")
  if not isinstance(video, bytes):
    return Stills(video, frame_rate, record, limits)
  form = video_format(video)
  if form is None:
    otherwise = f"is not a video; formats are {', '.join(FORMATS)}. Replace it or remove it."
    raise DataError(refused(video, record, otherwise))
  if form in ANIMATIONS:
    return Animation(video, form, record, limits)
  check_complete(video, form, record)
  return Container(video, record, limits)


def frames_alike(frames: Iterator[Image.Image], record: str) -> Iterator[Any]:
  """Yield frames, and check that all have the size of the first. Raises DataError, which names the record."""
  size = None
  for frame in frames:
    size = size or frame.size
    if frame.size != size:
      raise DataError(
        f"{record}: has frames of {size[0]} x {size[1]} and of {frame.width} x {frame.height} pixels. Give all "
        "frames one size."
      )
    yield frame
