"""Check that an encoded image is whole, where Pillow shows a damaged one without a word.

Pillow leaves the rest of a PNG black if its data end before the last row. It shows a JPEG although the decoder reports
damaged data, from which on the image is grey or shifted.
"""

import os
import re
import zlib
from pathlib import Path

from PIL import Image

from mmjax.data.errors import DataError

_DAMAGED = re.compile(r"Corrupt JPEG data|Premature end of JPEG file|Inconsistent progression sequence")
"""Warnings of libjpeg (jerror.h) that pixels are lost. The others do no harm: an unknown revision of JFIF, a code of
Adobe's colours, parameters of a scan that a sequential JPEG does not use."""
_EXTRA = re.compile(r"(\d+) extraneous bytes before marker 0x(e.|fe|db|c0|c2|c4|dd|da|d9)")
_SCAN = b"\xff\xda"
_MARK = (165, 2, 3, 5)
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of PNG's types of colour
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""(left, top, step right, step down) of the passes of an interlaced PNG (section 8.2)."""


def check_whole(image: Image.Image, picture: bytes | str | os.PathLike, record: str) -> None:
  """Check that a JPEG or PNG is whole. Other formats are checked by their decoders.

  Args:
    image: the image, decoded by Pillow.
    picture: the encoded bytes or the path that it was opened from.
    record: name of the image in error messages.
  Raises: DataError: the image is damaged, or has fewer rows than its header claims.
  """
  if image.format in ("JPEG", "MPO"):
    _check_jpeg(_bytes(picture), image.mode, record)
  elif image.format == "PNG" and (image.info.get("interlace") or _marked(image)):
    _check_png(_bytes(picture), record)


def _bytes(picture: bytes | str | os.PathLike) -> bytes:
  return picture if isinstance(picture, bytes) else Path(picture).read_bytes()


def _check_jpeg(data: bytes, mode: str, record: str) -> None:
  """Decode at 1/8 of the size, which reads all of the data."""
  import simplejpeg  # here, so that --help does not wait for it

  try:
    simplejpeg.decode_jpeg(data, "CMYK" if mode == "CMYK" else "GRAY", fastdct=True, min_factor=8)
  except ValueError as error:
    reason = str(error)
    if not _DAMAGED.search(reason) or _is_harmless(data, reason):
      return
    raise DataError(
      f"{record}: the JPEG is damaged ({reason}). Replace or remove it. If it looks right, save it again."
    ) from error


def _is_harmless(data: bytes, reason: str) -> bool:
  """True if the bytes too many are zeros before the end, or lie before the pixels. Others are pixels that were lost."""
  found = _EXTRA.search(reason)
  if found is None:
    return False
  if found[2] != "d9":
    return _extra_in_header(data)
  pixels = data[: data.rfind(b"\xff\xd9")]
  rest = pixels.rstrip(b"\0")
  zeros = len(pixels) - len(rest) - rest.endswith(b"\xff")  # the zero after 255 belongs to it
  return zeros >= int(found[1])


def _extra_in_header(data: bytes) -> bool:
  """True if bytes before the scan belong to no segment, and the JPEG is not damaged without them."""
  import simplejpeg

  kept, place = [data[:2]], 2
  while (start := data.find(b"\xff", place)) >= 0 and len(data) > start + 3:
    if data[start + 1] in (0x00, 0xFF):
      place = start + 1
      continue
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    if data[start : start + 2] == _SCAN:
      kept.append(data[start:])
      break
    kept.append(data[start:end])
    place = end
  clean = b"".join(kept)
  try:
    simplejpeg.decode_jpeg(clean, "GRAY", fastdct=True, min_factor=8)
  except ValueError as error:
    return not _DAMAGED.search(str(error))
  return len(clean) < len(data)


def mark(image: Image.Image) -> None:
  """Fill the pixels of an opened PNG before they are decoded, so that `check_whole` sees where a row is missing.

  Without it, such a row is black, as the last row of many drawings is, and all of these would be read twice.
  """
  if image.format == "PNG":
    image.im = Image.new(image.mode, image.size, _colour(image.mode)).im


def _colour(mode: str) -> int | tuple[int, ...]:
  bands = Image.getmodebands(mode)
  return _MARK[:bands] if bands > 1 else _MARK[0]


def _marked(image: Image.Image) -> bool:
  """True if the last row has the colour of `mark` only."""
  row = image.crop((0, image.height - 1, image.width, image.height))
  return row.tobytes() == Image.new(image.mode, row.size, _colour(image.mode)).tobytes()


def _check_png(data: bytes, record: str) -> None:
  """Check that there are as many bytes of pixels as the header claims."""
  place, wanted, found, stream = 8, 0, 0, zlib.decompressobj()
  while place + 8 <= len(data):
    size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
    body = data[place + 8 : place + 8 + size]
    if kind == b"IHDR":
      wanted = _bytes_of_pixels(body)
    elif kind == b"IDAT":
      while body and found < wanted:
        try:
          found += len(stream.decompress(body, 2**20))
        except zlib.error:
          break  # Pillow has accepted it
        body = stream.unconsumed_tail
    place += 12 + size
  if found < wanted:
    raise DataError(
      f"{record}: the PNG is truncated: its header claims {wanted} bytes of pixels, and there are {found}. Replace or "
      "remove it."
    )


def _bytes_of_pixels(header: bytes) -> int:
  """Bytes of the rows of a PNG before they are compressed, each with one byte for its filter (section 7)."""
  width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
  bits = header[8] * _CHANNELS[header[9]]
  passes = _PASSES if header[12] else ((0, 0, 1, 1),)
  total = 0
  for left, top, right, down in passes:
    columns, rows = -(-max(0, width - left) // right), -(-max(0, height - top) // down)
    total += rows * (1 + -(-columns * bits // 8)) if columns else 0
  return total
