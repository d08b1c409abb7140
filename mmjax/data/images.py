"""Encoded picture in, Pillow picture out: nothing is decoded before its header has been looked at."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mmjax.data.errors import DataError

Picture = bytes | str | os.PathLike | Image.Image | np.ndarray

MAX_PIXELS = 50_000_000


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
  try:
    image = Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else Path(picture))
  except Image.DecompressionBombError as error:
    raise DataError(f"{record}: refused as a decompression bomb ({error}). Shrink it or remove it.") from error
  except (OSError, ValueError, SyntaxError) as error:
    raise DataError(f"{record}: cannot be read as a picture ({error}). Replace or remove it.") from error
  width, height = image.size
  if width * height > max_pixels:
    raise DataError(
      f"{record}: refused, its header claims {width} x {height} pixels and the limit is {max_pixels}. "
      "Shrink it, or raise --data.max-pixels if you trust it."
    )
  try:
    image.load()
    return _with_known_mode(ImageOps.exif_transpose(image) if image.format in ("JPEG", "MPO", "TIFF") else image)
  except (OSError, ValueError, SyntaxError, EOFError) as error:
    raise DataError(f"{record}: the picture is corrupt or truncated ({error}). Replace or remove it.") from error


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
