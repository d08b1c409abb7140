"""JPEG pictures in training: decoded no larger than their crop needs, resampled once, by libjpeg-turbo and OpenCV.

Not pixel for pixel what Pillow decodes: at a half, a quarter or an eighth of the size the decoder itself averages (in
the frequencies it leaves out), and colours are upsampled without smoothing. Evaluation and interop never come here.
"""

import dataclasses
import math
from collections.abc import Callable

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float, UInt8

from mmjax.data.errors import DataError
from mmjax.data.geometry import Matrix
from mmjax.data.images import JPEG, decode, open_picture

SHRINKS = (8, 4, 2, 1)  # libjpeg-turbo's fast ones
_ORIENTATION = 0x0112
_LONGEST = 32_000  # OpenCV warps no side of 2^15

cv2.setNumThreads(0)  # a worker is one core's; OpenCV's own pool would compete with the others

Pixels = UInt8[np.ndarray, "h w 4"]


@dataclasses.dataclass(frozen=True)
class Photo:
  """A JPEG whose header has been read, and nothing more.

  Attributes:
    data: the file.
    record: how errors name it.
    stored: width and height in the file.
    orientation: as EXIF counts, 1 to 8: how it is turned to be looked at.
  """

  data: bytes
  record: str
  stored: tuple[int, int]
  orientation: int = 1

  @property
  def size(self) -> tuple[int, int]:
    """Width and height as it is looked at."""
    return self.stored if self.orientation < 5 else (self.stored[1], self.stored[0])


def open_photo(data: bytes, *, record: str, max_pixels: int) -> Photo | None:
  """The photo in these bytes; None where they are none, or of a kind that is left to Pillow (CMYK, for one).

  Raises:
    DataError: it claims more than max_pixels, or its header is corrupt.
  """
  if not data.startswith(JPEG):
    return None
  image = open_picture(data, record=record, max_pixels=max_pixels)
  try:
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    orientation = image.getexif().get(_ORIENTATION, 1) if "exif" in image.info else 1
  except (ValueError, SyntaxError, OSError, KeyError, TypeError, OverflowError):
    return None  # whatever it is, Pillow's decoder has the last word
  if (width, height) != image.size or max(image.size) > _LONGEST or space not in ("YCbCr", "Gray", "RGB"):
    return None
  return Photo(data, record, image.size, orientation if orientation in range(1, 9) else 1)


def decoded(photo: Photo, shrink: int) -> Pixels:
  """The stored pixels, a `shrink`-th as many each way (rounded up), opaque."""
  width, height = (math.ceil(side / shrink) for side in photo.stored)
  pixels = simplejpeg.decode_jpeg(
    photo.data, "RGBA", fastupsample=True, min_height=height, min_width=width, min_factor=shrink
  )
  if pixels.shape[:2] != (height, width):  # a tiny one has several scales of this size
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
  return pixels


def seen(
  photo: Photo, matrix: Matrix, size: int, decoder: Callable[[Photo, int], Pixels] = decoded
) -> UInt8[np.ndarray, "size size 4"]:
  """The photo seen through a matrix (see mmjax.data.geometry), premultiplied; outside of it is transparent.

  Args:
    photo: the photo.
    matrix: from the output, as (u, v, 1) with u and v from -1 to 1, to its pixels as it is looked at.
    size: height and width of the output.
    decoder: `decoded`, or one that remembers.

  Raises:
    DataError: it is corrupt or truncated.
  """
  scale = _scale(matrix, size)
  shrink = next(factor for factor in SHRINKS if factor <= scale or factor == 1)
  try:
    pixels = decoder(photo, shrink)
    matrix = np.diag([1 / shrink, 1 / shrink, 1.0]) @ _upright(photo) @ matrix
  except ValueError as error:
    if isinstance(error, DataError):
      raise
    pixels = np.asarray(
      decode(photo.data, record=photo.record, max_pixels=math.prod(photo.stored)).convert("RGBA")
    )  # Pillow forgives more, or names it
  factor = int(_scale(matrix, size))
  if factor >= 2:  # smaller than an eighth: average the rest
    height, width = (max(1, side // factor) for side in pixels.shape[:2])
    matrix = np.diag([width / pixels.shape[1], height / pixels.shape[0], 1.0]) @ matrix
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
  return _warped(pixels, matrix, size)


def _scale(matrix: Matrix, size: int) -> float:
  """Pixels of the input to one of the output, along the side where they are fewer."""
  (a, b, _), (d, e, _), _ = matrix.tolist()
  return 2 * min(math.hypot(a, d), math.hypot(b, e)) / size


def _warped(pixels: Pixels, matrix: Matrix, size: int) -> Pixels:
  scale = 2 / size  # output pixels to (u, v); centres of pixels are at halves here, and at whole numbers for OpenCV
  centre = np.array([[scale, 0.0, scale / 2 - 1], [0.0, scale, scale / 2 - 1], [0.0, 0.0, 1.0]])
  corners = matrix[:2] @ np.array([[-1.0, -1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
  sides = np.array([[pixels.shape[1]], [pixels.shape[0]]])
  inside = bool(np.all((corners >= -0.01) & (corners <= sides + 0.01)))
  whole = (matrix @ centre)[:2]
  whole[:, 2] -= 0.5
  return cv2.warpAffine(
    pixels,
    whole,
    (size, size),
    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    borderMode=cv2.BORDER_REPLICATE if inside else cv2.BORDER_CONSTANT,  # a crop up to the edge is opaque to the edge
  )


def _upright(photo: Photo) -> Float[np.ndarray, "3 3"]:
  """From coordinates as it is looked at to those it is stored in."""
  width, height = photo.size
  kept, mirrored = (1.0, 0.0), (-1.0, 1.0)
  swapped = photo.orientation >= 5
  # Whether the stored x runs against the axis it comes from, and the stored y.
  against_x, against_y = photo.orientation in (2, 3, 7, 8), photo.orientation in (3, 4, 6, 7)
  (x, x_from), (y, y_from) = (mirrored if against else kept for against in (against_x, against_y))
  if not swapped:
    return np.array([[x, 0.0, x_from * width], [0.0, y, y_from * height], [0.0, 0.0, 1.0]])
  return np.array([[0.0, x, x_from * height], [y, 0.0, y_from * width], [0.0, 0.0, 1.0]])
