"""Images are looked at before they are decoded, and what is wrong with them is said."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmjax.data import DataConfig, DataError, eval_transform
from mmjax.data.images.decoding import decode, trimmed

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (40, 30, 3), np.uint8)


def encoded(array=PIXELS, file_format="PNG", **options):
  buffer = io.BytesIO()
  Image.fromarray(array).save(buffer, file_format, **options)
  return buffer.getvalue()


def chunk(kind, data):
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width, height):
  """A PNG of a few hundred bytes that claims width x height pixels."""
  header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
  return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def test_every_kind_of_picture_is_the_same_picture(tmp_path):
  path = tmp_path / "a.png"
  path.write_bytes(encoded())
  for picture in (encoded(), path, str(path), PIXELS, Image.fromarray(PIXELS)):
    np.testing.assert_array_equal(np.asarray(decode(picture)), PIXELS)


def test_modes_become_rgb_or_rgba():
  grey = decode(encoded(PIXELS[..., 0]))
  assert grey.mode == "RGB" and np.array_equal(np.asarray(grey)[..., 1], PIXELS[..., 0])
  assert decode(encoded(np.dstack([PIXELS, PIXELS[..., :1]]))).mode == "RGBA"
  buffer = io.BytesIO()
  Image.fromarray(PIXELS).quantize(8).save(buffer, "PNG", transparency=0)
  assert decode(buffer.getvalue()).mode == "RGBA"
  deep = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
  np.testing.assert_array_equal(np.asarray(decode(encoded(deep)))[..., 0], deep >> 8)


def test_photographs_are_turned_upright():
  image, buffer = Image.fromarray(PIXELS), io.BytesIO()
  exif = image.getexif()
  exif[0x0112] = 6  # the camera was held on its side
  image.save(buffer, "JPEG", exif=exif)
  assert decode(buffer.getvalue()).size == (40, 30)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "WEBP"])
def test_truncated_pictures_name_the_record(file_format):
  data = encoded(file_format=file_format)
  with pytest.raises(DataError, match=r"row 7: .*(corrupt|truncated|cannot be read)"):
    decode(data[: len(data) // 2], record="row 7")


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_names_the_record(data):
  with pytest.raises(DataError, match=r"row 7: cannot be read as an image; formats are"):
    decode(data, record="row 7")


def test_corrupt_png_is_refused():
  data = bytearray(encoded())
  data[len(data) // 2] ^= 0xFF
  with pytest.raises(DataError, match=r"corrupt"):
    decode(bytes(data))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # Pillow's, from 89 megapixels on
@pytest.mark.parametrize("side", [8_000, 12_000, 60_000])
def test_bombs_are_refused_before_they_are_decoded(side, monkeypatch):
  monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
  with pytest.raises(DataError, match=r"row 7: refused"):
    decode(bomb(side, side), record="row 7")


def test_the_limit_on_pixels_is_a_setting():
  with pytest.raises(DataError, match=r"30 x 40 pixels and the limit is 1000.*--data.max-pixels"):
    eval_transform(DataConfig(max_pixels=1000), 8)(encoded())


@pytest.mark.parametrize("array", [PIXELS.astype(np.float32), PIXELS[None], PIXELS[..., :2]])
def test_other_arrays_are_not_guessed_at(array):
  with pytest.raises(DataError, match="give uint8"):
    decode(array)


def test_trimming_leaves_what_is_visible_in_the_middle_of_a_square():
  drawing = np.zeros((20, 30, 4), np.uint8)
  drawing[4:10, 12:24] = (200, 100, 50, 255)  # 6 high, 12 wide
  drawing[0, 0] = (0, 0, 0, 5)  # too faint to see
  got = np.asarray(trimmed(Image.fromarray(drawing)))
  assert got.shape == (12, 12, 4)
  assert (got[3:9] == (200, 100, 50, 255)).all() and (got[:3] == 0).all() and (got[9:] == 0).all()


def test_trimming_takes_the_corner_for_the_margin_where_nothing_is_transparent():
  photo = np.full((16, 16, 3), (250, 250, 240), np.uint8)
  photo[5:9, 2:12] = 7
  got = np.asarray(trimmed(Image.fromarray(photo)))
  assert got.shape == (10, 10, 3) and (got[3:7] == 7).all() and (got[:3] == (250, 250, 240)).all()


@pytest.mark.parametrize("picture", [np.zeros((5, 7, 4), np.uint8), np.full((5, 7, 3), 9, np.uint8)])
def test_a_picture_of_nothing_stays_as_it_is(picture):
  assert np.array_equal(np.asarray(trimmed(Image.fromarray(picture))), picture)


def test_evaluation_trims_when_it_is_told_to():
  small = np.zeros((32, 32, 4), np.uint8)
  small[10:20, 14:24] = (255, 0, 0, 255)
  whole = np.full((10, 10, 4), (255, 0, 0, 255), np.uint8)
  transform = eval_transform(DataConfig(trim=True), 8)
  np.testing.assert_array_equal(transform(small), transform(whole))
  assert not np.array_equal(eval_transform(DataConfig(), 8)(small), transform(whole))
