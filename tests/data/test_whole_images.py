"""Images that Pillow shows although a part is missing are refused, by the name of the record."""

import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmjax.data import DataError
from mmjax.data.images.decoding import decode
from mmjax.data.images.geometry import box_matrix
from mmjax.data.images.photo import open_photo, seen
from mmjax.data.images.whole import _bytes_of_pixels
from mmjax.interop.preprocess import Preprocess

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)).resize((144, 96))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
  data = io.BytesIO()
  image.save(data, kind, **options)
  return data.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: bytes, *, height: int = 4, colour: int = 2, depth: int = 8, interlaced: int = 0) -> bytes:
  """A PNG of width 4 with these bytes of pixels, in two chunks."""
  body = zlib.compress(pixels)
  header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, height, depth, colour, 0, 0, interlaced))
  parts = chunk(b"IDAT", body[:5]) + chunk(b"IDAT", body[5:])
  return b"\x89PNG\r\n\x1a\n" + header + parts + chunk(b"IEND", b"")


WHITE = b"\0" + b"\xff" * 12


@pytest.mark.parametrize("rows", [1, 3])
def test_a_png_with_fewer_rows_than_it_claims(rows):
  assert np.asarray(decode(png(WHITE * 4))).min() == 255
  with pytest.raises(
    DataError, match=rf"^row 7: the PNG is truncated: .* 52 bytes of pixels, and there are {13 * rows}"
  ):
    decode(png(WHITE * rows), record="row 7")


def test_a_png_whose_last_rows_are_black_or_transparent_is_read():
  for colour, width in ((0, 4), (2, 12), (4, 8), (6, 16)):
    assert not np.asarray(decode(png(bytes(4 * (1 + width)), colour=colour)))[..., :3].any()
  with pytest.raises(DataError, match="the PNG is truncated"):
    decode(png(bytes(3 * 17), colour=6))


def test_an_interlaced_png_without_its_last_pass():
  header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 1)
  whole = _bytes_of_pixels(header)
  assert whole == (1 + 1) + (1 + 1) + (1 + 2) + 2 * (1 + 2) + 2 * (1 + 4)  # passes 1, 4, 5, 6 and 7
  full = b"\0\xff" + b"\0\xff" + b"\0\xff\xff" + 2 * b"\0\xff\xff" + 2 * b"\0\xff\xff\xff\xff"
  assert np.asarray(decode(png(full, colour=0, interlaced=1))).min() == 255
  with pytest.raises(DataError, match="the PNG is truncated: its header claims 23 bytes of pixels, and there are 18"):
    decode(png(full[:-5], colour=0, interlaced=1))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}])
def test_a_jpeg_that_is_damaged_inside_is_refused_in_training_and_evaluation(options, tmp_path):
  mode = options.pop("mode", "RGB")
  data = encoded(NOISE.convert(mode), "JPEG", quality=90, **options)
  decode(data)
  start = data.index(b"\xff\xda") + 300
  damaged = data[:start] + data[start + 200 :]
  with Image.open(io.BytesIO(damaged)) as image:
    image.load()  # Pillow says nothing
  (tmp_path / "a.jpg").write_bytes(damaged)
  for read in (
    lambda: decode(damaged, record="row 7"),
    lambda: decode(tmp_path / "a.jpg", record="row 7"),
    lambda: Preprocess(8)(damaged),
  ):
    with pytest.raises(DataError, match=r"the JPEG is damaged \(Corrupt JPEG data: .*Replace or remove it"):
      read()
  photo = open_photo(damaged, record="row 7", max_pixels=10**6)
  if photo is not None:
    with pytest.raises(DataError, match=r"^row 7: the JPEG is damaged"):
      seen(photo, box_matrix(0, 0, 144, 96), 16)


@pytest.mark.parametrize("before", [b"\xff\xdb", b"\xff\xc0", b"\xff\xda"])
def test_bytes_between_the_segments_of_a_jpeg_do_no_harm(before):
  data = encoded(NOISE, "JPEG")
  at = data.index(before)
  extra = data[:at] + b"junk" + data[at:]
  np.testing.assert_array_equal(np.asarray(decode(extra)), np.asarray(decode(data)))
  photo = open_photo(extra, record="r", max_pixels=10**6)
  if photo is not None:
    assert seen(dataclasses.replace(photo), box_matrix(0, 0, 144, 96), 16)[..., 3].all()
  start = extra.index(b"\xff\xda") + 300
  with pytest.raises(DataError, match="the JPEG is damaged"):
    decode(extra[:start] + extra[start + 200 :])


def test_bytes_after_a_jpeg_do_no_harm():
  data = encoded(NOISE, "JPEG")
  with pytest.raises(DataError, match="the JPEG is damaged .*If it looks right, save it again"):
    decode(data[:-2] + b"dirt" + data[-2:])  # what is left over where pixels were lost looks alike
  for extra in (data[:-2] + bytes(4) + data[-2:], data + b"junk", data.replace(b"JFIF\0\1", b"JFIF\0\2")):
    np.testing.assert_array_equal(np.asarray(decode(extra)), np.asarray(decode(data)))
