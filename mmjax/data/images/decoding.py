"""Decoding of images to Pillow images. The header of an image is checked before its pixels are decoded."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

from mmjax.data.downloads import refused
from mmjax.data.errors import DataError
from mmjax.data.images.modes import to_rgb
from mmjax.data.images.whole import check_whole, mark

ImageLike = bytes | str | os.PathLike | Image.Image | np.ndarray

MAX_PIXELS = 50_000_000
JPEG = b"\xff\xd8"
"""First bytes of a JPEG file."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")
"""Allowed formats; MPO, of several JPEGs, is among JPEG. Pillow passes some others (EPS) to programs that execute their
content."""


def decode(picture: ImageLike, *, record: str = "the image", max_pixels: int = MAX_PIXELS) -> Image.Image:
  """Decode an image. It is turned upright, and is the first frame of several (GIF, WebP, APNG, TIFF).

  Args:
    picture: encoded bytes, a path, a Pillow image, or a uint8 array [height, width, 3], [height, width, 4] or
      [height, width] (grey).
    record: name of the image in error messages.
    max_pixels: largest number of pixels. An encoded image whose header claims more is refused before it is decoded.
  Returns: a Pillow image of mode "RGB", or "RGBA" if it has transparency.
  Raises:
    DataError: the image cannot be read, is not an image, is corrupt or truncated, is too large, or is of a kind that
      cannot be read rightly (mmjax.data.images.modes).
  """
  if isinstance(picture, np.ndarray):
    image = _from_array(picture, record)
  elif isinstance(picture, Image.Image):
    image = picture
  else:
    image = open_image(picture, record=record, max_pixels=max_pixels)
  try:
    if isinstance(picture, np.ndarray | Image.Image):
      return to_rgb(image, record)
    mark(image)
    converted = to_rgb(image, record)
    check_whole(image, picture, record)
    return converted
  except DataError:
    raise
  except Exception as error:  # decoders raise many types of exceptions
    raise DataError(f"{record}: the image is corrupt or truncated ({error!r}). Replace or remove it.") from error


def open_image(picture: bytes | str | os.PathLike, *, record: str, max_pixels: int) -> Image.Image:
  """Open an image and read its header, without decoding the pixels.

  Args:
    picture: encoded bytes or a path.
    record: name of the image in error messages.
    max_pixels: largest number of pixels.
  Returns: the Pillow image.
  Raises:
    DataError: the image cannot be read, its format is not in FORMATS, or its header claims more than max_pixels.
  """
  try:
    image = Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else Path(picture), formats=FORMATS)
  except Image.DecompressionBombError as error:
    raise DataError(f"{record}: refused as a decompression bomb ({error}). Shrink it or remove it.") from error
  except Exception as error:  # header parsers raise many types of exceptions
    why = "" if isinstance(error, UnidentifiedImageError) else f" ({error!r})"
    otherwise = f"cannot be read as an image{why}; formats are {', '.join(FORMATS)}. Replace or remove it."
    raise DataError(refused(picture if isinstance(picture, bytes) else None, record, otherwise)) from error
  width, height = image.size
  if width * height > max_pixels:
    raise DataError(
      f"{record}: refused, its header claims {width} x {height} pixels and the limit is {max_pixels}. "
      "Shrink it, or raise --data.max-pixels if you trust it."
    )
  return image


def decode_mask(picture: ImageLike, size: tuple[int, int], *, record: str) -> Image.Image:
  """Decode a relevance mask to mode "L".

  Args:
    picture: the mask, as for `decode`.
    size: (width, height) of its image.
    record: name of the record in error messages.
  Raises:
    DataError: the mask cannot be read, has transparency, or its size is not that of its image.
  """
  mask = decode(picture, record=f"{record}, field 'relevance'", max_pixels=size[0] * size[1])
  if mask.mode == "RGBA":
    raise DataError(f"{record}: the field 'relevance' has transparency. Make the mask black and white.")
  mask = mask.convert("L")
  if mask.size != size:
    raise DataError(
      f"{record}: the field 'relevance' is {mask.width} x {mask.height} pixels, its image {size[0]} x {size[1]}. "
      "Make the mask as large as the image."
    )
  return mask


def trimmed(image: Image.Image) -> Image.Image:
  """Cut off the margins of an image, and centre the rest in a square.

  A margin is transparent or, in an opaque image, has the colour of the top left pixel. Emoji of different artists have
  different margins around the same drawing. An image without margins is returned unchanged.
  """
  box = _visible_box(image)
  if box is None or box == (0, 0, *image.size):
    return image
  left, top, right, bottom = box
  side = max(right - left, bottom - top)
  margin = (0, 0, 0, 0) if image.mode == "RGBA" else image.getpixel((0, 0))
  square = Image.new(image.mode, (side, side), margin)
  square.paste(image.crop(box), ((side - right + left) // 2, (side - bottom + top) // 2))
  return square


def _visible_box(image: Image.Image) -> tuple[int, int, int, int] | None:
  """Box (left, top, right, bottom) inside the margins; None if all of the image is margin."""
  if image.mode == "RGBA":
    return image.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()  # up to 8: faint shadows
  return ImageChops.difference(image, Image.new(image.mode, image.size, image.getpixel((0, 0)))).getbbox()


def _from_array(array: np.ndarray, record: str) -> Image.Image:
  if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
    raise DataError(
      f"{record}: an array of {array.dtype} {list(array.shape)} is not an image; "
      "give uint8 [height, width, 3] (or 4 with transparency)."
    )
  return Image.fromarray(array)
