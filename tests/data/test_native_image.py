"""The column of images at their own shape: rows of patches for training and for evaluation."""

import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image as Picture

from mmjax.data import (
  AugmentationConfig,
  DataConfig,
  DataError,
  Image,
  NativeImage,
  eval_transform,
  evaluation_batches,
  make_loader,
)
from mmjax.data.batching import Batcher
from mmjax.data.images.native import PADDED, from_row, native_grid, row_width, to_row
from mmjax.data.transforms import premultiplied, train_transform

STILL = AugmentationConfig(crop_scale=(1.0, 1.0), rotation=0, brightness=0, contrast=0, saturation=0, background=0)
SHAPES = ((8, 24), (24, 8), (16, 16), (40, 100), (3, 200))


def png(pixels: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Picture.fromarray(pixels).save(buffer, "png")
  return buffer.getvalue()


def noise(height: int, width: int) -> np.ndarray:
  return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


RECORDS = [{"id": f"noise/{n}", "concept": n, "image": png(noise(*shape))} for n, shape in enumerate(SHAPES)]


def data(column: NativeImage, **fields) -> DataConfig:
  return DataConfig(columns={"image": column}, **fields)


def trained(column: NativeImage, *, step: int = 0, seed: int = 3, records=RECORDS) -> np.ndarray:
  prepared = Batcher(data(column), records, None, 16, seed)(np.zeros(len(records), int), np.arange(len(records)), step)
  assert prepared.error is None, prepared.error
  return prepared.batch["image"]


def evaluated(column: NativeImage, records=RECORDS) -> np.ndarray:
  transform = eval_transform(data(column), 16)
  (batch,) = evaluation_batches(records, transform, None, batch_size=len(records), columns={"image": column})
  assert batch["image"].shape == (len(records), *transform.shape)
  return np.asarray(batch["image"])


@pytest.mark.parametrize("most", [1, 4, 9, 100, 256])
def test_a_grid_is_as_large_as_fits_and_of_the_image_s_shape(most):
  rng = np.random.default_rng(most)
  for width, height in rng.integers(1, 800, (50, 2)).tolist():
    rows, columns = native_grid(width, height, 16, most)
    assert 1 <= rows * columns <= most
    larger = [
      max(1, math.ceil(side * 1.5 * max(rows * 16 / height, columns * 16 / width) / 16)) for side in (height, width)
    ]
    assert math.prod(larger) > most or most >= rows * columns == 1
    if min(rows, columns) > 1:
      assert abs(math.log((columns / rows) / (width / height))) < math.log(1 + 2 / (min(rows, columns)))
  assert native_grid(300, 100, 16, 48) == (4, 12) and native_grid(100, 100, 16, 256) == (16, 16)


def test_a_row_holds_the_pixels_and_the_places():
  pixels = noise(8, 12).astype(np.float32)
  row = to_row(pixels, 4, 8)
  assert row.shape == (8, row_width(4)) and row.dtype == np.float32
  np.testing.assert_array_equal(row[:6, -2:], [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]])
  np.testing.assert_array_equal(row[4, :-2], pixels[4:, 4:8].reshape(-1))
  assert not row[6:, :-2].any() and (row[6:, -2:] == PADDED).all()
  np.testing.assert_array_equal(from_row(row), pixels)
  for bad in (noise(8, 13), noise(12, 12)):
    with pytest.raises(ValueError, match="are not at most 8 patches of 4 x 4"):
      to_row(bad.astype(np.float32), 4, 8)


def test_images_of_a_batch_keep_their_shapes_in_training_and_evaluation():
  column = NativeImage(patch_size=8, lengths=(8,), augmentation=STILL)
  training, evaluation = trained(column), evaluated(column)
  assert training.shape == evaluation.shape == (5, 8, row_width(8))
  shapes = [from_row(row).shape[:2] for row in evaluation]
  assert shapes == [(16, 32), (32, 16), (16, 16), (16, 32), (8, 64)] == [from_row(row).shape[:2] for row in training]
  np.testing.assert_allclose(training[2], evaluation[2], atol=1e-6)  # 16 x 16 pixels stay as they are
  np.testing.assert_allclose(from_row(evaluation[2]), RNG_PIXELS, atol=1e-6)


RNG_PIXELS = noise(16, 16) / 127.5 - 1


def test_lengths_depend_on_the_seed_and_the_step_alone():
  column = NativeImage(patch_size=8, lengths=(4, 8, 8), augmentation=STILL)
  drawn = [trained(column, step=step, records=RECORDS[:1]).shape[1] for step in range(40)]
  assert drawn == [trained(column, step=step, records=RECORDS[3:]).shape[1] for step in range(40)]
  assert 0.1 < drawn.count(4) / 40 < 0.6 and set(drawn) == {4, 8}
  assert drawn != [trained(column, step=step, seed=4, records=RECORDS[:1]).shape[1] for step in range(40)]
  assert evaluated(column).shape[1] == 8
  config, count = data(column), dict(batch_size=2, seed=3, image_size=16)
  parts = [make_loader(config, RECORDS, None, process_index=n, process_count=2, **count) for n in range(2)]
  both = [[next(loader)["image"] for _ in range(6)] for loader in parts]
  assert [[len(row) for batch in part for row in batch] for part in both] == [drawn[:6]] * 2
  again = make_loader(config, RECORDS, None, process_index=1, process_count=2, **count)
  again.set_state({**parts[1].get_state(), "step": 4})
  np.testing.assert_array_equal(next(again)["image"], both[1][4])
  for loader in (*parts, again):
    loader.close()


@dataclasses.dataclass(frozen=True)
class Turn:
  """A rotation by a fixed angle."""

  degrees: float

  def matrix(self, rng):
    sin, cos = math.sin(math.radians(self.degrees)), math.cos(math.radians(self.degrees))
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def test_a_rotation_keeps_the_shapes_of_things():
  """A black disc in a wide image stays a disc."""
  y, x = np.mgrid[:64, :192]
  disc = np.where((y - 32) ** 2 + (x - 96) ** 2 < 400, 0, 255).astype(np.uint8)
  transform = train_transform(data(NativeImage(augmentation=STILL), augmentation=STILL), 64)
  transform = dataclasses.replace(transform, geometry=(Turn(45.0),))
  image = premultiplied(Picture.fromarray(np.repeat(disc[:, :, None], 3, axis=2)))
  found = transform.native(image, np.random.default_rng(0), 8, 48)
  assert found.shape == (32, 96, 3)
  y, x = np.nonzero(found[..., 0] < 0)
  assert x.std() == pytest.approx(y.std(), rel=0.05) and len(x) == pytest.approx(100 * np.pi, rel=0.1)


def test_augmentation_depends_on_the_example_and_crops_within_its_shape():
  wild = AugmentationConfig(crop_scale=(0.5, 0.6), crop_ratio=(0.9, 1.1), rotation=10, flip=0.5, cutout=1.0)
  column = NativeImage(patch_size=8, lengths=(12,), augmentation=wild)
  first = trained(column)
  np.testing.assert_array_equal(first, trained(column))
  np.testing.assert_array_equal(first[1:], trained(column, records=RECORDS)[1:])
  assert np.abs(first - trained(column, seed=4)).max() > 0.1
  for (height, width), row in zip(SHAPES[:4], first):
    rows, columns = (side // 8 for side in from_row(row).shape[:2])
    assert (rows > columns) == (height > width) or height == width


@pytest.mark.parametrize("fields", [dict(patch_size=0), dict(lengths=()), dict(lengths=(4, 0))])
def test_settings_out_of_range_are_refused(fields):
  with pytest.raises(ValueError, match="must be at least 1, and not empty"):
    NativeImage(**fields)


def test_bad_images_and_other_transforms_are_named():
  column = NativeImage(patch_size=8, lengths=(8,))
  broken = [{**RECORDS[0], "image": RECORDS[0]["image"][:60]}]
  assert "noise/0" in Batcher(data(column), broken, None, 16, 0)(np.zeros(1, int), np.zeros(1, int)).error
  with pytest.raises(DataError, match="noise/0"):
    column.decode(broken[0], data(column))
  square = eval_transform(DataConfig(columns={"image": Image()}), 16)
  with pytest.raises(DataError, match=r"needs a transform to rows of the shape \[8, 194\], and the run has one of"):
    list(evaluation_batches(RECORDS, square, None, batch_size=5, columns={"image": column}))
  with pytest.raises(DataError, match="needs square images"):
    eval_transform(data(column), 16).mask(Picture.new("L", (3, 3)))
