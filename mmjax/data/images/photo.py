"""JPEG images in training, with libjpeg-turbo and OpenCV: decoded no larger than the crop needs, and resampled once.

The pixels are not exactly those of Pillow. At 1/2, 1/4 or 1/8 of the size, the decoder itself averages by leaving out
frequencies, and colours are upsampled without smoothing. Evaluation and interop do not use this module.
"""

import dataclasses
import math
from collections.abc import Callable

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float, UInt8

from mmjax.data.errors import DataError
from mmjax.data.images.decoding import JPEG, decode, open_image
from mmjax.data.images.geometry import Matrix
from mmjax.data.images.modes import orientation

SHRINKS = (8, 4, 2, 1)  # the fast factors of libjpeg-turbo
_LONGEST = 32_000  # OpenCV cannot warp a side of 2^15 pixels

cv2.setNumThreads(0)  # each worker uses one core; OpenCV's threads would compete with other workers

Pixels = UInt8[np.ndarray, "h w 4"]


@dataclasses.dataclass(frozen=True)
class Photo:
  """A JPEG of which only the header has been read.

  Attributes:
    data: content of the file.
    record: name of the record in error messages.
    stored: width and height in the file.
    orientation: EXIF orientation, 1 to 8: the rotation and reflection for display.
  """

  data: bytes
  record: str
  stored: tuple[int, int]
  orientation: int = 1

  @property
  def size(self) -> tuple[int, int]:
    """Width and height when displayed."""
    return self.stored if self.orientation < 5 else (self.stored[1], self.stored[0])


def open_photo(data: bytes, *, record: str, max_pixels: int) -> Photo | None:
  """Read the header of a JPEG.

  Args:
    data: content of the file.
    record: name of the record in error messages.
    max_pixels: largest number of pixels.
  Returns: the photo. None if it is not a JPEG, or a kind of JPEG that Pillow must decode (for example CMYK).
  Raises:
    DataError: the header claims more than max_pixels, or it is corrupt.
  """
  if not data.startswith(JPEG):
    return None
  image = open_image(data, record=record, max_pixels=max_pixels)
  try:
    height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    turned = orientation(image) if {"exif", "xmp"} & image.info.keys() else 1
  except Exception:  # parsers of EXIF raise many types of exceptions
    return None  # Pillow's decoder decides if it can be read
  if (width, height) != image.size or max(image.size) > _LONGEST or space not in ("YCbCr", "Gray", "RGB"):
    return None
  return Photo(data, record, image.size, turned)


def decoded(photo: Photo, shrink: int) -> Pixels:
  """Decode the stored pixels at 1/`shrink` of the width and height, rounded up. Alpha is 255."""
  width, height = (math.ceil(side / shrink) for side in photo.stored)
  pixels = simplejpeg.decode_jpeg(
    photo.data, "RGBA", fastupsample=True, min_height=height, min_width=width, min_factor=shrink
  )
  if pixels.shape[:2] != (height, width):  # for a tiny image, several scales give this size
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
  return pixels


def seen(
  photo: Photo, matrix: Matrix, size: int, decoder: Callable[[Photo, int], Pixels] = decoded
) -> UInt8[np.ndarray, "size size 4"]:
  """Resample a photo through a matrix (see mmjax.data.images.geometry). Positions outside the photo are transparent.

  Args:
    photo: the photo.
    matrix: maps positions of the output, (u, v, 1) with u and v from -1 to 1, to pixels of the displayed photo.
    size: height and width of the output.
    decoder: `decoded`, or a variant with a cache.
  Returns: premultiplied pixels.
  Raises:
    DataError: the photo is corrupt or truncated.
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
    )  # Pillow accepts more files, or raises an error that names the record
  factor = int(_scale(matrix, size))
  if factor >= 2:  # the result is still at least twice as large as needed: average it
    height, width = (max(1, side // factor) for side in pixels.shape[:2])
    matrix = np.diag([width / pixels.shape[1], height / pixels.shape[0], 1.0]) @ matrix
    pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
  return _warped(pixels, matrix, size)


def _scale(matrix: Matrix, size: int) -> float:
  """Number of input pixels per output pixel, along the side where it is smaller."""
  (a, b, _), (d, e, _), _ = matrix.tolist()
  return 2 * min(math.hypot(a, d), math.hypot(b, e)) / size


def _warped(pixels: Pixels, matrix: Matrix, size: int) -> UInt8[np.ndarray, "size size 4"]:
  scale = 2 / size  # from output pixels to (u, v). Pixel centres are at 0.5, 1.5, ... here, and at integers in OpenCV
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
    borderMode=cv2.BORDER_REPLICATE if inside else cv2.BORDER_CONSTANT,  # a crop inside the image is opaque at its edge
  )


def _upright(photo: Photo) -> Float[np.ndarray, "3 3"]:
  """Matrix from coordinates of the displayed photo to coordinates of the stored photo."""
  width, height = photo.size
  kept, mirrored = (1.0, 0.0), (-1.0, 1.0)
  swapped = photo.orientation >= 5
  # True if stored x (stored y) runs in the opposite direction of the axis that it comes from.
  against_x, against_y = photo.orientation in (2, 3, 7, 8), photo.orientation in (3, 4, 6, 7)
  (x, x_from), (y, y_from) = (mirrored if against else kept for against in (against_x, against_y))
  if not swapped:
    return np.array([[x, 0.0, x_from * width], [0.0, y, y_from * height], [0.0, 0.0, 1.0]])
  return np.array([[0.0, x, x_from * height], [y, 0.0, y_from * width], [0.0, 0.0, 1.0]])
