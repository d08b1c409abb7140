"""Every mode and format of Pillow: read rightly, or refused by name."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from mmjax.data import DataError
from mmjax.data.images.decoding import FORMATS, decode, decode_mask
from mmjax.data.images.geometry import box_matrix
from mmjax.data.images.photo import open_photo, seen

rng = np.random.default_rng(0)
SQUARES = np.kron(rng.integers(0, 256, (3, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # survives JPEG and AVIF
ALPHA = np.kron(rng.integers(1, 256, (3, 4)), np.ones((8, 8))).astype(np.uint8)
RGB = Image.fromarray(SQUARES)
RGBA = Image.fromarray(np.dstack([SQUARES, ALPHA]))
WIDE = rng.integers(0, 65536, (5, 7)).astype(np.uint16)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
  data = io.BytesIO()
  image.save(data, kind, **options)
  return data.getvalue()


def pixels(picture) -> np.ndarray:
  return np.asarray(decode(picture, record="row 7")).astype(int)


def chunk(kind: bytes, data: bytes) -> bytes:
  return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, depth: int, colour: int, row: bytes, *chunks: bytes) -> bytes:
  """A PNG of one row."""
  header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))
  body = b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
  return b"\x89PNG\r\n\x1a\n" + header + body


def tiff(width: int, height: int, data: bytes, **tags: int) -> bytes:
  """A little-endian TIFF of one strip. Tags by name, as below."""
  numbers = {
    "subfile": 254,
    "old_subfile": 255,
    "samples": 277,
    "white": 281,
    "extra": 338,
    "bits": 258,
    "photometric": 262,
    "sample_format": 339,
  }
  fields = {256: width, 257: height, 259: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
  fields |= {numbers[name]: value for name, value in tags.items()}
  entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
  return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(fields)) + entries + b"\0\0\0\0"


TURNS = {
  1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
  5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1), 7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
  8: np.rot90,
}  # fmt: skip
TURNED = ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF"]
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{}"/></x:xmpmeta>'


def turned(kind: str, orientation: int, *, in_xmp: bool = False) -> bytes:
  exif = Image.Exif()
  exif[0x0112] = orientation
  where = {"xmp": XMP.format(orientation).encode()} if in_xmp else {"exif": exif}
  lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}, "MPO": {"quality": 100}}
  return encoded(RGB, kind, **where, **lossless.get(kind, {}))


@pytest.mark.parametrize("kind", TURNED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_followed_in_every_format(kind, orientation):
  data, expected = turned(kind, orientation), TURNS[orientation](SQUARES)
  got = pixels(data)
  assert got.shape == expected.shape and np.abs(got - expected).mean() < 8
  np.testing.assert_array_equal(got, np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")))
  np.testing.assert_array_equal(got, pixels(Image.open(io.BytesIO(data))), "an image that Pillow has opened as well")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_an_orientation_in_xmp_is_followed_also_in_training(kind):
  data = turned(kind, 6, in_xmp=True)
  assert pixels(data).shape == (32, 24, 3)
  if kind == "JPEG":
    photo = open_photo(data, record="r", max_pixels=10**6)
    assert photo is not None and photo.size == (24, 32)
    shown = np.asarray(decode(data).resize((16, 16), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(seen(photo, box_matrix(0, 0, 24, 32), 16)[..., :3] - shown).mean() < 12


def test_broken_exif_is_an_error_of_the_record_in_both_paths(monkeypatch):
  def broken(_):
    raise struct.error("unpack requires a buffer of 4 bytes")

  data = turned("JPEG", 6)
  monkeypatch.setattr(Image.Image, "getexif", broken)
  assert open_photo(data, record="row 7", max_pixels=10**6) is None, "left to Pillow, which names the record"
  with pytest.raises(DataError, match=r"row 7: its EXIF cannot be read .*unpack requires.*Remove the EXIF"):
    pixels(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_exif_whose_directory_lies_outside_of_it_is_refused(kind):
  data = turned(kind, 6)
  at = data.index(b"MM\0*\0\0\0\x08")
  broken = data[: at + 6] + b"\xff\xff" + data[at + 8 :]
  if kind == "PNG":
    size = int.from_bytes(broken[at - 8 : at - 4], "big")
    broken = broken[: at + size] + struct.pack(">I", zlib.crc32(broken[at - 4 : at + size])) + broken[at + size + 4 :]
  with pytest.raises(DataError, match="row 7: its EXIF cannot be read .*its directory is at byte 65535"):
    pixels(broken)
  if kind == "JPEG":
    assert open_photo(broken, record="row 7", max_pixels=10**6) is None


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB", "La"]


def in_mode(mode: str) -> Image.Image:
  if mode == "La":
    return RGBA.convert("LA").convert("La")
  return (RGBA if mode.endswith(("A", "a")) else RGB).convert(mode)


# A palette of 216 colours, 8 bits of hue and of CIELAB, and luma with colour differences are coarse.
COARSE = {"P": 51, "HSV": 6, "LAB": 25, "YCbCr": 3}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_in_memory_keeps_its_colours_and_transparency(mode):
  got, grey = pixels(in_mode(mode)), np.asarray(RGB.convert("L")).astype(int)[..., None]
  dithered = np.asarray(RGB.convert("1")).astype(int)[..., None] * 255
  difference = np.abs(got[..., :3] - {"1": dithered, "L": grey, "LA": grey, "La": grey}.get(mode, SQUARES))
  premultiplied = mode in ("RGBa", "La")  # rounded before it is divided by alpha
  assert (difference <= (255 / ALPHA[..., None] if premultiplied else COARSE.get(mode, 0))).all()
  if mode.endswith(("A", "a")):
    np.testing.assert_array_equal(got[..., 3], ALPHA)
  else:
    assert got.shape[2] == 3


def test_lab_is_cie_lab():
  """Colours of sRGB by their published coordinates (D50), which 8 bits hold to half a unit."""
  for lab, rgb in (
    ((54.3, 80.8, 69.9), (255, 0, 0)),
    ((87.8, -79.3, 81.0), (0, 255, 0)),
    ((100, 0, 0), (255, 255, 255)),
  ):
    stored = bytes([round(lab[0] * 2.55), round(lab[1]) & 255, round(lab[2]) & 255])
    image = Image.frombytes("LAB", (1, 1), stored)
    for picture in (image, encoded(image, "TIFF")):
      assert np.abs(pixels(picture)[0, 0] - rgb).max() <= 14


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("mode", MODES)
def test_a_file_of_any_mode_is_what_pillow_wrote(kind, mode):
  """Against the conversion in memory, where Pillow can write the mode and has not changed it."""
  try:
    data = encoded(in_mode(mode), kind, **({"lossless": True} if kind == "WEBP" else {}))
  except (OSError, KeyError, ValueError):
    return
  stored = Image.open(io.BytesIO(data)).mode
  if stored == mode or (stored, mode) == ("RGB", "RGBX"):
    difference = np.abs(pixels(data) - pixels(in_mode(mode)))
    assert difference.mean() < (12 if kind in ("JPEG", "AVIF", "MPO") else 1e-9)


@pytest.mark.parametrize("mode, dtype", [("I;16", "<u2"), ("I;16L", "<u2"), ("I;16B", ">u2"), ("I;16N", "=u2")])
def test_grey_of_16_bits_is_scaled_in_memory_and_in_files(mode, dtype):
  image = Image.frombytes(mode, WIDE.shape[::-1], WIDE.astype(dtype).tobytes())
  pictures = [image]
  for kind in ("PNG", "TIFF", "PPM"):
    try:
      pictures.append(encoded(image, kind))
    except (OSError, KeyError):  # Pillow cannot write this one
      continue
  for picture in pictures:
    np.testing.assert_array_equal(pixels(picture), (WIDE >> 8)[..., None].repeat(3, 2))


@pytest.mark.parametrize("maxval", [1, 100, 255, 256, 1023, 4095, 65535])
def test_grey_of_any_maximum_in_pgm(maxval):
  values = np.arange(0, maxval + 1, max(1, maxval // 60)).astype(np.int64)
  raw = values.astype(">u2" if maxval > 255 else np.uint8).tobytes()
  plain = " ".join(map(str, values)).encode()
  for magic, data in ((b"P5", raw), (b"P2", plain)):
    got = pixels(magic + f" {len(values)} 1 {maxval}\n".encode() + data)[0, :, 0]
    assert np.abs(got - 255 * values / maxval).max() <= 1
  colour = b"P6" + f" {len(values) // 3} 1 {maxval}\n".encode() + raw
  if len(values) >= 3:
    assert np.abs(pixels(colour).ravel() - (255 * values / maxval)[: len(values) // 3 * 3]).max() <= 1


def test_grey_of_16_and_12_bits_in_tiff():
  grey = (WIDE >> 8)[..., None].repeat(3, 2)
  black_is_zero = tiff(7, 5, WIDE.tobytes(), bits=16, photometric=1)
  white_is_zero = tiff(7, 5, WIDE.tobytes(), bits=16, photometric=0)
  np.testing.assert_array_equal(pixels(black_is_zero), grey)
  np.testing.assert_array_equal(pixels(white_is_zero), 255 - grey)
  twelve = [0, 1, 0x7FF, 0xFFF]
  packed = bytes.fromhex("".join(f"{value:03x}" for value in twelve))
  assert pixels(tiff(4, 1, packed, bits=12, photometric=1))[0, :, 0].tolist() == [0, 0, 0x7F, 0xFF]
  assert pixels(tiff(4, 1, bytes([0, 1, 254, 255]), bits=8, photometric=0))[0, :, 0].tolist() == [255, 254, 1, 0]


@pytest.mark.parametrize(
  "data, message",
  [
    (encoded(Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8) * 10**7), "TIFF"), "mode I has numbers of 32"),
    (encoded(Image.fromarray(np.eye(8, dtype=np.float32)), "TIFF"), "mode F has numbers of 32 bits"),
    (encoded(Image.fromarray(np.eye(8, dtype=np.float32)), "PPM"), "mode F has numbers of 32 bits"),
    (tiff(4, 1, bytes([0, 1, 128, 255]), bits=8, photometric=1, sample_format=2), "a TIFF of signed or floating"),
    (tiff(4, 1, bytes(8), bits=16, photometric=1, sample_format=2), "mode I has numbers of 32 bits"),
    (tiff(4, 1, bytes(4), bits=8, photometric=1, subfile=1), "first page is a preview or a mask"),
    (tiff(4, 1, bytes(4), bits=8, photometric=1, old_subfile=2), "first page is a preview or a mask"),
    (tiff(4, 1, struct.pack("<4H", 0, 9, 99, 1023), bits=16, photometric=1), "16 bits whose values are all below 4096"),
    (
      tiff(2, 1, struct.pack("<2H", 0, 4095), bits=16, photometric=1, white=4095),
      "a TIFF of 16 bits whose white is 4095",
    ),
    (png(2, 16, 2, bytes(12), chunk(b"tRNS", bytes(6))), "a PNG of 16 bits with a transparent colour"),
  ],
  ids=["int32", "float32", "PFM", "int8", "int16", "preview", "old preview", "10 bits", "12 bits", "transparent"],
)
def test_what_cannot_be_known_is_refused_by_name(data, message):
  with pytest.raises(DataError, match=rf"^row 7: .*{message}.*Convert it to 8 bits RGB, or remove it"):
    pixels(data)


def patched(data: bytes, tag: int, kind: int, new: int) -> bytes:
  """A little-endian TIFF with another number of a tag."""
  at = data.index(struct.pack("<HH", tag, kind))
  return data[:at] + struct.pack("<H", new) + data[at + 2 :]


def test_a_fourth_band_that_is_not_named_is_not_transparency():
  data = encoded(RGBA, "TIFF")
  assert pixels(data).shape[2] == 4
  with pytest.raises(DataError, match="row 7: a TIFF of 4 bands that does not say if the last one is transparency"):
    pixels(patched(data, 338, 3, 340))


def test_colours_of_8_bits_in_a_tiff_are_refused():
  image = RGB.quantize(16)
  data = encoded(image, "TIFF")
  np.testing.assert_array_equal(pixels(data), pixels(image))
  at = data.index(struct.pack("<HHI", 320, 3, 768)) + 8
  start = struct.unpack("<I", data[at : at + 4])[0]
  colours = np.frombuffer(data[start : start + 1536], "<u2") >> 8
  with pytest.raises(DataError, match="row 7: a TIFF whose colours are written with 8 bits"):
    pixels(data[:start] + colours.astype("<u2").tobytes() + data[start + 1536 :])


def test_a_black_tiff_of_16_bits_is_black():
  assert not pixels(tiff(2, 1, bytes(4), bits=16, photometric=1)).any()


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_known_white_are_refused_in_memory(mode):
  with pytest.raises(DataError, match=rf"row 7: an image of mode {mode} has numbers"):
    pixels(RGB.convert(mode))


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_cmyk_jpeg_is_inverted_as_adobe_does_and_refused_where_that_is_not_known(kind):
  inks = RGB.convert("CMYK")
  data = encoded(inks, kind, quality=100)
  assert np.abs(pixels(data) - SQUARES).mean() < 3
  at = data.index(b"\xff\xee")
  without = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
  with pytest.raises(DataError, match=r"row 7: a CMYK JPEG without Adobe's marker"):
    pixels(without)


def grey_png(depth: int, levels: list[int], transparent: int) -> bytes:
  bits = "".join(f"{level:0{depth}b}" for level in levels)
  row = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
  return png(len(levels), depth, 0, row, chunk(b"tRNS", struct.pack(">H", transparent)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_level_of_a_grey_png(depth):
  top = 2**depth - 1
  levels = sorted({0, 1, top // 3, top // 2, top})
  for place, level in enumerate(levels):
    got = pixels(grey_png(depth, levels, level))
    assert got[0, :, 3].tolist() == [255 * (other != place) for other in range(len(levels))]
    assert got[0, :, 0].tolist() == [value * 255 // top if depth <= 8 else value >> 8 for value in levels]


def test_transparency_of_palettes_and_of_one_colour():
  palette = chunk(b"PLTE", bytes(range(9)))
  some = pixels(png(4, 2, 3, bytes([0b00011001]), palette, chunk(b"tRNS", bytes([0, 128]))))
  assert some[0].tolist() == [[0, 1, 2, 0], [3, 4, 5, 128], [6, 7, 8, 255], [3, 4, 5, 128]]
  one = pixels(png(2, 8, 2, bytes([1, 2, 3, 4, 5, 6]), chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))))
  assert one[0].tolist() == [[1, 2, 3, 0], [4, 5, 6, 255]]
  with_palette = RGBA.quantize(32)
  assert with_palette.mode == "P" and "transparency" not in with_palette.info
  got = pixels(with_palette)
  assert got.shape[2] == 4 and np.abs(got[..., 3] - ALPHA).mean() < 16


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_of_several_is_the_image(kind):
  first, second = (Image.new("RGB", (16, 16), colour) for colour in ((200, 30, 30), (30, 30, 200)))
  data = encoded(first, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
  assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 2
  assert np.abs(pixels(data)[..., :3] - (200, 30, 30)).max() <= 3


def test_an_image_of_pillow_that_is_truncated_names_the_record():
  data = encoded(RGB, "PNG")
  with pytest.raises(DataError, match=r"row 7: the image is corrupt or truncated"):
    pixels(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_a_mask_has_no_transparency():
  assert decode_mask(encoded(RGB, "PNG"), RGB.size, record="r").mode == "L"
  with pytest.raises(DataError, match=r"r: the field 'relevance' has transparency"):
    decode_mask(encoded(RGBA, "PNG"), RGB.size, record="r")


def test_empty_arrays_are_no_images():
  with pytest.raises(DataError, match=r"row 7: "):
    pixels(np.zeros((0, 4, 3), np.uint8))
