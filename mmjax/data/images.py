"""Encoded picture in, Pillow picture out: nothing is decoded before its header has been looked at."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageOps

from mmjax.data.errors import DataError

Picture = bytes | str | os.PathLike | Image.Image | np.ndarray

MAX_PIXELS = 50_000_000
JPEG = b"\xff\xd8"
"""How one begins."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "MPO")
"""Others are refused: Pillow hands some of them (EPS) to programs that run what they read."""


def decode(picture: Picture, *, record: str = "the picture", max_pixels: int = MAX_PIXELS) -> Image.Image:
  """The picture as "RGB", or as "RGBA" where it has transparency.

  Args:
    picture: encoded bytes, a path, a Pillow picture, or uint8 [height, width, 3 or 4 (or nothing: grey)].
    record: how errors name it.
    max_pixels: more than these in the header, and the picture is refused undecoded.

  Raises:
    DataError: unreadable, not a picture, corrupt, truncated, or too large.
  """
  if isinstance(picture, Image.Image):
    return _with_known_mode(picture)
  if isinstance(picture, np.ndarray):
    return _from_array(picture, record)
  image = open_picture(picture, record=record, max_pixels=max_pixels)
  try:
    image.load()
    return _with_known_mode(ImageOps.exif_transpose(image) if image.format in ("JPEG", "MPO", "TIFF") else image)
  except Exception as error:  # decoders raise whatever they stumble over
    raise DataError(f"{record}: the picture is corrupt or truncated ({error!r}). Replace or remove it.") from error


def open_picture(picture: bytes | str | os.PathLike, *, record: str, max_pixels: int) -> Image.Image:
  """The picture with its header read and its pixels not.

  Raises:
    DataError: unreadable, of a format that is not in FORMATS, or its header claims too much.
  """
  try:
    image = Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else Path(picture), formats=FORMATS)
  except Image.DecompressionBombError as error:
    raise DataError(f"{record}: refused as a decompression bomb ({error}). Shrink it or remove it.") from error
  except Exception as error:  # header parsers raise whatever they stumble over
    raise DataError(
      f"{record}: cannot be read as a picture ({error!r}); known are {', '.join(FORMATS)}. Replace or remove it."
    ) from error
  width, height = image.size
  if width * height > max_pixels:
    raise DataError(
      f"{record}: refused, its header claims {width} x {height} pixels and the limit is {max_pixels}. "
      "Shrink it, or raise --data.max-pixels if you trust it."
    )
  return image


def decode_mask(picture: Picture, size: tuple[int, int], *, record: str) -> Image.Image:
  """A relevance mask as mode "L".

  Raises:
    DataError: unreadable, or not as large (width, height) as the picture it belongs to.
  """
  mask = decode(picture, record=f"{record}, field 'relevance'", max_pixels=size[0] * size[1]).convert("L")
  if mask.size != size:
    raise DataError(
      f"{record}: the field 'relevance' is {mask.width} x {mask.height} pixels, its picture {size[0]} x {size[1]}. "
      "Make the mask as large as the picture."
    )
  return mask


def trimmed(image: Image.Image) -> Image.Image:
  """What is visible, in the middle of a square: margins that are transparent, or of the corner's colour, cut off.

  Artists (and fonts) leave margins of their own around the same drawing; a picture without any stays as it is.
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
  """(left, top, right, bottom) of what is not margin; None where everything is."""
  if image.mode == "RGBA":
    return image.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()  # 8: a shadow's last breath
  return ImageChops.difference(image, Image.new(image.mode, image.size, image.getpixel((0, 0)))).getbbox()


def _with_known_mode(image: Image.Image) -> Image.Image:
  transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
  mode = "RGBA" if transparent else "RGB"
  if image.mode.startswith("I;16"):  # Pillow clips 16-bit grey to white instead of scaling it
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  return image if image.mode == mode else image.convert(mode)


def _from_array(array: np.ndarray, record: str) -> Image.Image:
  if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
    raise DataError(
      f"{record}: an array of {array.dtype} {list(array.shape)} is not a picture; "
      "give uint8 [height, width, 3] (or 4 with transparency)."
    )
  return _with_known_mode(Image.fromarray(array))
