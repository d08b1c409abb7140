"""Images of requests: decoded as training data are, and small copies for the page."""

import base64
import binascii
import io
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmjax.data.errors import DataError
from mmjax.data.images.decoding import decode
from mmjax.deploy.serving.refusals import Refused

THUMBNAIL = 256
"""Largest side of the small copy of an image, in pixels."""
_OF_TRAINING = ", or raise --data.max-pixels if you trust it"  # a remedy of training data that a client does not have


def from_base64(text: str, record: str) -> bytes:
  """Bytes of an image in a JSON body. Raises Refused (400) if it is not base64."""
  try:
    return base64.b64decode(text.partition(";base64,")[2] if text.startswith("data:") else text, validate=True)
  except (binascii.Error, ValueError) as error:
    raise Refused(400, f"{record}: not base64 ({error}). Send the bytes of the file in base64.") from error


def opened(data: bytes, record: str, max_pixels: int) -> Any:
  """A decoded image. Its header is checked before its pixels are decoded.

  Args:
    data: the encoded image.
    record: name of the image in errors.
    max_pixels: largest number of pixels.
  Raises: Refused (400): it is no image, is corrupt, or claims more pixels.
  """
  try:
    return decode(data, record=record, max_pixels=max_pixels)
  except DataError as error:
    raise Refused(400, str(error).replace(_OF_TRAINING, "")) from error


def thumbnail(data: bytes, record: str, max_pixels: int) -> bytes:
  """A small copy of an image, as WebP. Arguments as for `opened`."""
  image = opened(data, record, max_pixels)
  image.thumbnail((THUMBNAIL, THUMBNAIL))
  buffer = io.BytesIO()
  image.save(buffer, "WEBP", quality=80)
  return buffer.getvalue()


def data_uri(pixels: UInt8[np.ndarray, "height width 3"]) -> str:
  """An image as a data URI, without loss."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "PNG")
  return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
