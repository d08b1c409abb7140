"""Conversion of images that are not opaque RGB, as each reference library does it."""

from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from mmjax.data.errors import DataError
from mmjax.data.images.decoding import MAX_PIXELS, ImageLike, decode, open_image
from mmjax.data.images.whole import check_whole, mark

Colors = Literal["drop", "white", "late", "none"]
"""Conversion of an image to RGB.

* "drop": before resizing, as Pillow's convert("RGB") does it. Transparency is dropped (transformers before 5.21).
* "white": before resizing. Transparent images are put on white (transformers from 5.21).
* "late": after the crop, by convert("RGB"). Images are resized in their own mode (open_clip, OpenAI's CLIP).
* "none": not at all (transformers with do_convert_rgb false). Images that are neither RGB nor grey are refused.
"""
_BYTES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")


def read_image(picture: ImageLike) -> Image.Image:
  """Open an image upright and in its own mode. Images of more than 8 bits a channel are converted as in training.

  The reference libraries show 16-bit images almost white. mmjax scales them.
  """
  if isinstance(picture, np.ndarray):
    return decode(picture)
  image = picture if isinstance(picture, Image.Image) else _opened(picture)
  return image if image.mode in _BYTES else decode(image)


def _opened(picture: ImageLike) -> Image.Image:
  name = str(picture) if not isinstance(picture, bytes) else "the image"
  image = open_image(picture, record=name, max_pixels=MAX_PIXELS)  # type: ignore[arg-type]
  try:
    mark(image)
    image.load()
    check_whole(image, picture, name)  # type: ignore[arg-type]
    return ImageOps.exif_transpose(image)
  except DataError:
    raise
  except Exception as error:  # decoders raise many types of exceptions
    raise DataError(f"{name}: the image is corrupt or truncated ({error!r}). Replace or remove it.") from error


def to_rgb(image: Image.Image, colors: Colors) -> Image.Image:
  """Convert an image to RGB before it is resized.

  Raises: DataError: the image has a mode that the folder's preprocessing does not convert, or Pillow cannot.
  """
  if colors == "none" and image.mode not in ("RGB", "L"):
    raise DataError(
      f"the image has the mode {image.mode!r}, and the folder's preprocessing does not convert images to RGB "
      "(do_convert_rgb). Convert it first: image.convert('RGB')"
    )
  if colors == "white" and ("A" in image.getbands() or image.info.get("transparency") is not None):
    image = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
  return converted(image)


def converted(image: Image.Image) -> Image.Image:
  """Convert an image to RGB. Transparency is dropped."""
  try:
    return image.convert("RGB")
  except ValueError as error:
    raise DataError(f"an image of the mode {image.mode!r} cannot be converted to RGB ({error})") from error
