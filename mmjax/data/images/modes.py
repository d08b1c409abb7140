"""Conversion of an opened image to RGB or RGBA: turned upright, and the first of several frames.

Samples of 16 bits become 8 bits by their upper byte. Colours without a colour space of their own (CMYK) are converted
without a profile. An image is refused by name if its pixels cannot be known: numbers without a known white, and kinds
that Pillow reads wrongly.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmjax.data.errors import DataError

_ORIENTATION = 0x0112  # tag of EXIF
_TURNED = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
_CONVERTED = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
_GREY_16 = ("I;16", "I;16B", "I;16L", "I;16N")
_REMEDY = "Convert it to 8 bits RGB, or remove it."
_SUBFILE, _OLD_SUBFILE, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 254, 255, 258, 262, 339  # tags of TIFF
_WHITE, _COLOURS, _EXTRA_SAMPLES = 281, 320, 338
_DARK = 16  # a TIFF of 16 bits whose values stay below this share of 256 has up to 12 bits


def to_rgb(image: Image.Image, record: str) -> Image.Image:
  """Decode an opened image, turn it upright, and convert it.

  Args:
    image: the image. Its pixels may be decoded already.
    record: name of the image in error messages.
  Returns: a Pillow image of mode "RGB", or "RGBA" if it has transparency.
  Raises:
    DataError: the image is of a kind that cannot be read rightly. Decoders raise other errors for corrupt images.
  """
  fault = _fault(image)
  if fault is not None:
    raise DataError(f"{record}: {fault}. {_REMEDY}")
  _scale_transparent_grey(image)
  tags = getattr(image, "tag_v2", {})
  bits, white_is_zero = tags.get(_BITS, (16,))[0], tags.get(_PHOTOMETRIC) == 0
  wide = image.mode == "I"  # 16 bits in an image of 32 bits
  dark = image.format == "TIFF" and max(tags.get(_BITS, (1,))) == 16 and tags.get(_PHOTOMETRIC) in (1, 2)
  image.load()
  if dark:
    _check_dark(image, record)
  image = _upright(image, record)
  if wide or image.mode in _GREY_16:
    return _from_grey16(image, bits, white_is_zero)
  if image.mode == "La":
    image = image.convert("LA")  # Pillow has no other conversion
  mode = "RGBA" if image.has_transparency_data else "RGB"
  return image if image.mode == mode else image.convert(mode)


def orientation(image: Image.Image) -> int:
  """Orientation for display, 1 to 8, in EXIF or XMP. 1: as stored, also if there is none.

  A TIFF is turned by Pillow when it is loaded, and has none afterwards. Raises many types of errors if it is corrupt.
  """
  exif = image.info.get("exif")
  if isinstance(exif, bytes):
    _check_directory(exif.removeprefix(b"Exif\0\0"))
  found = image.getexif().get(_ORIENTATION, 1)
  return int(found) if found in _TURNED else 1


def _check_directory(exif: bytes) -> None:
  """Raise ValueError if the directory of an EXIF lies outside of it, which Pillow reads as an empty one."""
  if exif[:2] in (b"II", b"MM") and len(exif) > 8:
    start = int.from_bytes(exif[4:8], "little" if exif[:2] == b"II" else "big")
    if start + 2 > len(exif):
      raise ValueError(f"its directory is at byte {start} of {len(exif)}")


def _upright(image: Image.Image, record: str) -> Image.Image:
  try:
    method = _TURNED.get(orientation(image))
  except Exception as error:
    raise DataError(
      f"{record}: its EXIF cannot be read ({error!r:.99}), so the orientation is unknown. Remove the EXIF or the image."
    ) from error
  return image if method is None else image.transpose(method)


def _fault(image: Image.Image) -> str | None:
  """Reason why the pixels of an image cannot be known. None: they can."""
  mode, format = image.mode, image.format
  if 0 in image.size:
    return f"an image of {image.width} x {image.height} has no pixels"
  if mode == "F" or (mode == "I" and format not in ("PPM", "PNG")):
    return f"an image of mode {mode} has numbers of 32 bits, of which none is known to be white"
  if mode not in (*_CONVERTED, *_GREY_16, "La", "I"):
    return f"an image of mode {mode} is not supported"
  if format in ("JPEG", "MPO") and mode == "CMYK" and "adobe" not in image.info:
    return "a CMYK JPEG without Adobe's marker, so its colours may be inverted"
  if format == "PNG" and mode == "RGB" and "transparency" in image.info and _raw_mode(image).startswith("RGB;16"):
    return "a PNG of 16 bits with a transparent colour, which Pillow does not read"
  if format == "TIFF":
    return _tiff_fault(image)
  return None


def _tiff_fault(image: Image.Image) -> str | None:
  tags = getattr(image, "tag_v2", {})
  if any(kind not in (1, 4) for kind in np.atleast_1d(tags.get(_SAMPLE_FORMAT, 1))):
    return "a TIFF of signed or floating numbers, of which none is known to be white"
  if tags.get(_SUBFILE, 0) & 5 or tags.get(_OLD_SUBFILE) == 2:
    return "a TIFF whose first page is a preview or a mask, as in raw files of cameras"
  if image.mode in ("RGBA", "LA", "PA") and _EXTRA_SAMPLES not in tags:
    return f"a TIFF of {len(image.getbands())} bands that does not say if the last one is transparency or infrared"
  if 0 < max(tags.get(_COLOURS, (0,))) < 256:
    return "a TIFF whose colours are written with 8 bits, where 16 bits belong"
  white, full = np.min(tags.get(_WHITE, 65535)), 2 ** max(tags.get(_BITS, (8,))) - 1
  if white < full and full > 255:
    return f"a TIFF of {full.bit_length()} bits whose white is {white}, and not {full}"
  return None


def _check_dark(image: Image.Image, record: str) -> None:
  """Raise DataError if all values of a TIFF of 16 bits are those of 12 bits or less: its white cannot be known."""
  if image.mode in _GREY_16 or image.mode == "I":
    largest = int(np.asarray(image).max()) >> 8
  else:
    largest = int(np.asarray(image)[..., :3].max())
  if largest < _DARK and np.asarray(image).any():
    raise DataError(
      f"{record}: a TIFF of 16 bits whose values are all below 4096: it has 12 bits or less, or is almost black. "
      f"{_REMEDY}"
    )


def _raw_mode(image: Image.Image) -> str:
  """Name of the stored samples. Empty if the image is decoded already."""
  tiles = getattr(image, "tile", [])
  arguments = tiles[0][3] if tiles else ""
  return arguments if isinstance(arguments, str) else str(arguments[0])


def _scale_transparent_grey(image: Image.Image) -> None:
  """Scale the transparent level of a PNG with 2 or 4 bits to 8 bits. Pillow scales the pixels, but not the level."""
  factor = {"L;2": 85, "L;4": 17}.get(_raw_mode(image)) if image.format == "PNG" else None
  if factor is not None and "transparency" in image.info:
    image.info["transparency"] *= factor


def _from_grey16(image: Image.Image, bits: int, white_is_zero: bool) -> Image.Image:
  values = np.asarray(image).astype(np.uint16)
  grey = (values >> (bits - 8)).astype(np.uint8)
  grey = 255 - grey if white_is_zero else grey
  if "transparency" not in image.info:
    return Image.fromarray(grey).convert("RGB")
  alpha: UInt8[np.ndarray, "h w"] = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
  return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha))).convert("RGBA")
