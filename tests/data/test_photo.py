"""JPEGs in training: the same picture as by Pillow, whatever size they are decoded at."""

import dataclasses
import io
import itertools

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mmjax.data import DataConfig, DataError, TokenizerConfig, make_loader, make_tokenizer
from mmjax.data.images.color import Normalize
from mmjax.data.images.decoding import decode
from mmjax.data.images.geometry import box_matrix
from mmjax.data.images.photo import decoded, open_photo, seen
from mmjax.data.records import Record
from mmjax.data.transforms import ExampleRng, premultiplied, train_transform

SIZE = 32


def smooth(width: int, height: int, seed: int = 0) -> Image.Image:
  noise = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
  return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(3))


def jpeg(image: Image.Image, *, orientation: int = 1, **options) -> bytes:
  data, exif = io.BytesIO(), Image.Exif()
  exif[0x0112] = orientation
  image.save(data, "JPEG", quality=95, exif=exif, **options)
  return data.getvalue()


def opened(data: bytes):
  return open_photo(data, record="r", max_pixels=10**7)


def by_both(data: bytes, config: DataConfig, epoch: int = 0):
  """A training picture by Pillow, and as the loader makes it."""
  transform = train_transform(config, SIZE)
  slow = transform(premultiplied(decode(data)), ExampleRng(0)(epoch, 5))
  fast = np.empty((SIZE, SIZE, 3), np.float32)
  transform.photo(opened(data), ExampleRng(0)(epoch, 5), fast, decoded)
  return slow, fast


def augmented(**fields) -> DataConfig:
  config = DataConfig()
  return dataclasses.replace(config, augmentation=dataclasses.replace(config.augmentation, **fields))


@pytest.mark.parametrize("size", [(40, 30), (90, 61), (150, 200), (301, 290), (1100, 900)])
def test_it_shows_what_pillow_shows(size):
  """Normalised colours go from -1 to 1, so 0.01 is one and a half of 255 levels."""
  for epoch in range(4):
    slow, fast = by_both(jpeg(smooth(*size), subsampling=0), augmented(rotation=0.0), epoch)
    difference = np.abs(slow - fast)
    assert difference.mean() < 0.012 and difference.max() < 0.15
    slow, fast = by_both(jpeg(smooth(*size)), augmented(rotation=0.0), epoch)  # colours at half the resolution
    assert np.abs(slow - fast).mean() < 0.04


@pytest.mark.parametrize("size", [(90, 61), (1100, 900)])
def test_rotated_and_from_outside_only_the_outline_differs(size):
  """Above 1, the crop is larger than the picture, and transparent around it; its edge is half a pixel softer."""
  for epoch in range(4):
    config = augmented(crop_scale=(1.0, 1.5), shear=5.0, flip=0.5)
    slow, fast = by_both(jpeg(smooth(*size), subsampling=0), config, epoch)
    difference = np.abs(slow - fast).max(-1)
    assert np.quantile(difference, 0.85) < 0.1 and difference.mean() < 0.1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_as_exif_says(orientation):
  slow, fast = by_both(jpeg(smooth(100, 70), orientation=orientation, subsampling=0), augmented(rotation=0.0))
  assert np.abs(slow - fast).mean() < 0.012 < 0.1 < np.abs(slow - fast[:, ::-1]).mean()


@pytest.mark.parametrize("alpha", [255, 90])
def test_colours_by_opencv_are_those_by_numpy(alpha):
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, alpha + 1, (7, 5, 4), dtype=np.uint8)
  pixels[..., 3] = alpha
  matrix = np.eye(4) + rng.normal(0, 0.2, (4, 4))
  normalize, out = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), np.full((7, 5, 3), np.nan, np.float32)
  normalize.by_opencv(pixels, (0.1, 0.8, 0.3), matrix, out)
  np.testing.assert_allclose(out, normalize(pixels, (0.1, 0.8, 0.3), matrix), atol=2e-6)


@pytest.mark.parametrize("shrink, crop", [(1, 63), (2, 65), (4, 129), (8, 300), (8, 700)])
def test_no_more_is_decoded_than_the_crop_needs(shrink, crop):
  asked = []

  def decoder(photo, shrink):
    asked.append(shrink)
    return decoded(photo, shrink)

  seen(opened(jpeg(smooth(800, 800))), box_matrix(20, 30, crop, crop + 9), SIZE, decoder)
  assert asked == [shrink]


def test_a_crop_to_the_edge_is_opaque_and_outside_is_transparent():
  photo = opened(jpeg(smooth(64, 64)))
  assert seen(photo, box_matrix(0, 0, 64, 64), SIZE)[..., 3].min() == 255
  outside = seen(photo, box_matrix(-64, 0, 128, 64), SIZE)
  assert not outside[:, : SIZE // 2 - 1].any() and outside[:, SIZE // 2 + 1 :, 3].min() == 255


@pytest.mark.parametrize("mode, fast", [("RGB", True), ("L", True), ("CMYK", False)])
def test_every_kind_of_jpeg_is_shown(mode, fast):
  data = jpeg(smooth(60, 60).convert(mode))
  assert (opened(data) is not None) == fast
  assert decode(data).mode == "RGB"
  if fast:
    slow, quick = by_both(data, augmented(rotation=0.0))
    assert np.abs(slow - quick).mean() < 0.04


def test_what_is_no_jpeg_is_left_to_pillow_and_what_is_too_large_refused():
  png = io.BytesIO()
  smooth(9, 9).save(png, "PNG")
  assert opened(png.getvalue()) is None
  with pytest.raises(DataError, match=r"r: refused, its header claims 60 x 50"):
    open_photo(jpeg(smooth(60, 50)), record="r", max_pixels=2999)


def test_a_truncated_one_is_named_and_harmless_dirt_forgiven():
  data = jpeg(smooth(200, 200))
  with pytest.raises(DataError, match=r"^r: the image is corrupt or truncated"):
    seen(opened(data[: len(data) // 2]), box_matrix(0, 0, 200, 200), SIZE)
  dirty = data[:-2] + bytes(4) + data[-2:]  # Pillow takes it; a strict decoder warns
  clean = seen(opened(data), box_matrix(0, 0, 200, 200), SIZE)
  assert np.abs(seen(opened(dirty), box_matrix(0, 0, 200, 200), SIZE).astype(int) - clean).mean() < 3


@pytest.mark.parametrize("options", [{"cache_mb": 64}, {"trim": True}])
def test_the_loader_uses_it_and_its_memory_changes_nothing(tmp_path, options):
  records = [
    Record(image=jpeg(smooth(200, 150, n)), captions={"name": [f"n {n}"]}, id=str(n), concept=n) for n in range(6)
  ]
  config = DataConfig(dir=str(tmp_path), cache_mb=0, tokenizer=TokenizerConfig(vocab_size=300, max_length=8))
  tokenizer = make_tokenizer(config, records)

  def batches(config):
    loader = make_loader(config, records, tokenizer, image_size=SIZE, batch_size=6, process_index=0, process_count=1)
    return [batch["image"] for batch in itertools.islice(loader, 4)]

  usual, other = batches(config), batches(dataclasses.replace(config, **options))
  difference = np.abs(np.stack(usual) - np.stack(other)).max()
  assert difference == 0 if "cache_mb" in options else difference > 0  # trimmed pictures go through Pillow
