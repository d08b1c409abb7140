"""Augmentation against slow and obvious references, and what its randomness depends on."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mmjax.data import AugmentationConfig, DataConfig, DataError, Emoji, eval_transform
from mmjax.data.images.color import ColorJitter, Normalize, RandomBackground, RandomGreyscale
from mmjax.data.images.geometry import RandomFlip, RandomResizedCrop, RandomRotation, box_matrix, center_box, warp
from mmjax.data.transforms import (
  Cutout,
  ExampleRng,
  SampleCaption,
  caption_transform,
  check_captions,
  premultiplied,
  train_transform,
)

rng = np.random.default_rng(0)
RGBA = rng.integers(0, 256, (24, 24, 4), np.uint8)
STILL = AugmentationConfig(
  crop_scale=(1, 1),
  crop_ratio=(1, 1),
  rotation=0,
  brightness=0,
  contrast=0,
  saturation=0,
  background=0,
)


def picture(array=RGBA):
  return premultiplied(Image.fromarray(array))


def composite(array, color=(255, 255, 255)):
  background = Image.new("RGBA", array.shape[1::-1], (*color, 255))
  return np.asarray(Image.alpha_composite(background, Image.fromarray(array)).convert("RGB"), np.float32) / 255


def test_randomness_depends_on_seed_epoch_and_index_alone():
  def draws(seed, epoch, index):
    return ExampleRng(seed)(epoch, index).random(4).tolist()

  one = ExampleRng(1)
  one(5, 6).random(3)  # what came before does not matter
  assert one(2, 3).random(4).tolist() == draws(1, 2, 3)
  different = [draws(*numbers) for numbers in [(1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0), (2, 1, 3), (3, 2, 1)]]
  assert len({tuple(row) for row in different}) == 6


def test_without_augmentation_training_sees_what_evaluation_sees():
  config = DataConfig(augmentation=STILL)
  train = train_transform(config, 24)(picture(), ExampleRng(0)(0, 0))
  evaluation = eval_transform(config, 24)(RGBA)
  np.testing.assert_allclose(train, evaluation, atol=1e-6)
  np.testing.assert_allclose(evaluation / 2 + 0.5, composite(RGBA), atol=2.5 / 255)  # two roundings to 8 bits


def test_normalisation_uses_mean_and_deviation_of_each_channel():
  config = DataConfig(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
  plain, normalised = (eval_transform(c, 24)(RGBA) for c in (DataConfig(mean=(0, 0, 0), std=(1, 1, 1)), config))
  np.testing.assert_allclose(normalised, (plain - config.mean) / config.std, atol=1e-5)


def test_background_shows_through_transparency():
  normalize = Normalize((0, 0, 0), (1, 1, 1))
  result = normalize(np.asarray(picture()), (0.2, 0.4, 0.6))
  np.testing.assert_allclose(result, composite(RGBA, (51, 102, 153)), atol=2.5 / 255)
  colors = {tuple(RandomBackground(1.0).color(ExampleRng(0)(0, index))) for index in range(5)}
  assert len(colors) == 5
  assert RandomBackground(0.0).color(ExampleRng(0)(0, 0)) == (1, 1, 1)


def test_invisible_colours_do_not_bleed_when_resized():
  array = np.zeros((48, 48, 4), np.uint8)
  array[..., 0] = 255  # red wherever it is transparent
  array[:, 24:] = (0, 0, 255, 255)
  result = eval_transform(DataConfig(mean=(0, 0, 0), std=(1, 1, 1)), 20)(array)
  assert result[:, :9].min() > 0.99  # white
  assert (result[..., 0] <= result[..., 1] + 0.02).all()  # nowhere reddish


def test_colour_steps_match_their_definitions():
  colors = rng.random((50, 3))
  jitter = ColorJitter(brightness=0.5, contrast=0.5, saturation=0.5)
  b, c, s, _ = 1 + 0.5 * (2 * ExampleRng(3)(0, 0).random(4) - 1)
  grey = colors @ [0.299, 0.587, 0.114]
  expected = (s * colors + (1 - s) * grey[:, None]) * b * c + 0.5 * (1 - c)
  matrix = jitter.matrix(ExampleRng(3)(0, 0))
  np.testing.assert_allclose(colors @ matrix[:3, :3].T + matrix[:3, 3], expected, atol=1e-12)


def test_hue_keeps_greys_and_luma():
  matrix = ColorJitter(0, 0, 0, hue=0.5).matrix(ExampleRng(1)(0, 0))[:3, :3]
  np.testing.assert_allclose(matrix @ [0.3, 0.3, 0.3], [0.3, 0.3, 0.3], atol=1e-3)
  color = np.array([0.9, 0.1, 0.2])
  luma = np.array([0.299, 0.587, 0.114])
  assert abs(luma @ matrix @ color - luma @ color) < 1e-6
  assert np.abs(matrix @ color - color).max() > 0.05


def test_greyscale_takes_colours_away():
  config = DataConfig(augmentation=AugmentationConfig(greyscale=1.0, background=0))
  result = train_transform(config, 24)(picture(), ExampleRng(0)(0, 0))
  np.testing.assert_allclose(result[..., 0], result[..., 2], atol=1e-5)
  assert np.array_equal(RandomGreyscale(0.0).matrix(ExampleRng(0)(0, 0)), np.eye(4))


def test_flip_mirrors():
  flip = AugmentationConfig(**{**STILL.__dict__, "flip": 1.0})
  mirrored, straight = (
    train_transform(DataConfig(augmentation=a), 24)(picture(), ExampleRng(0)(0, 0)) for a in (flip, STILL)
  )
  np.testing.assert_allclose(mirrored, straight[:, ::-1], atol=1e-6)
  assert RandomFlip(0.5).matrix(ExampleRng(0)(0, 0)).shape == (3, 3)


def test_crops_stay_inside_and_keep_their_share_of_the_area():
  crop = RandomResizedCrop(scale=(0.2, 0.5), ratio=(0.5, 2))
  generator = np.random.default_rng(0)
  for _ in range(200):
    matrix = crop.box(300, 100, generator)
    half = np.array([matrix[0, 0], matrix[1, 1]])
    center = matrix[:2, 2]
    assert (center - half >= -1e-9).all() and (center + half <= np.array([300, 100]) + 1e-9).all()
    assert 4 * half.prod() <= 0.5 * 300 * 100 + 1e-6


@pytest.mark.parametrize("width, height", [(10, 10), (12, 10), (10, 12)])
def test_a_crop_scale_of_one_is_the_square_that_evaluation_sees(width, height):
  matrix = RandomResizedCrop(scale=(1, 1), ratio=(0.5, 2)).box(width, height, np.random.default_rng(0))
  np.testing.assert_array_equal(matrix, box_matrix((width - 10) / 2, (height - 10) / 2, 10, 10))


def test_a_crop_scale_above_one_zooms_out_around_the_whole_picture():
  matrix = RandomResizedCrop(scale=(4, 4), ratio=(1, 1)).box(10, 10, np.random.default_rng(0))
  half, center = np.array([matrix[0, 0], matrix[1, 1]]), matrix[:2, 2]
  np.testing.assert_allclose(half, 10)
  assert (center - half <= 0).all() and (center + half >= 10).all()


def test_warp_crops_like_pillow():
  image = Image.fromarray(RGBA[..., :3]).convert("RGBA")
  cropped = warp(image, box_matrix(4, 6, 8, 8), [], 8)
  np.testing.assert_array_equal(np.asarray(cropped), np.asarray(image.crop((4, 6, 12, 14))))


def test_warp_averages_what_it_shrinks():
  stripes = np.zeros((64, 64, 4), np.uint8)
  stripes[:, ::2] = 255
  small = np.asarray(warp(Image.fromarray(stripes, "RGBa"), box_matrix(0, 0, 64, 64), [], 8))
  assert np.abs(small.astype(int) - 128).max() <= 1  # sampling alone would give 0 or 255


def test_rotation_turns_around_the_middle():
  array = np.zeros((33, 33, 4), np.uint8)
  array[15:18, 15:18] = 255
  array[15:18, 27:30] = 255
  matrix = RandomRotation(90).matrix(ExampleRng(0)(0, 0))
  turned = np.asarray(warp(Image.fromarray(array, "RGBa"), box_matrix(0, 0, 33, 33), [matrix], 33))[..., 0]
  assert turned[16, 16] == 255
  x, y = 16 + 12 * np.linalg.inv(matrix)[:2, 0]  # where the other dot must have gone
  assert turned[16, 28] < 100 < turned[round(y), round(x)]


def test_centre_crop_of_a_wide_picture():
  assert center_box(30, 10) == (10, 0, 20, 10)


@pytest.mark.parametrize(("interpolation", "number"), [("bilinear", 2), ("bicubic", 3)])
@pytest.mark.parametrize(("square", "box"), [("crop", (10, 0, 70, 60)), ("squash", (0, 0, 80, 60))])
def test_evaluation_resizes_as_the_settings_say(interpolation, number, square, box):
  array = np.random.default_rng(3).integers(0, 256, (60, 80, 3), np.uint8)
  config = DataConfig(mean=(0, 0, 0), std=(1, 1, 1), interpolation=interpolation, square=square)
  shown = eval_transform(config, 24)(array)
  expected = Image.fromarray(array).resize((24, 24), Image.Resampling(number), box=box)  # Pillow antialiases
  np.testing.assert_allclose(shown * 255, np.asarray(expected), atol=1e-3)
  white = np.zeros((60, 80), np.uint8)
  white[:, :6] = 255  # outside the middle square
  assert eval_transform(config, 24).mask(Image.fromarray(white)).any() == (square == "squash")


def test_squashed_images_are_whole_in_training_too():
  config = DataConfig(augmentation=STILL, square="squash")
  train = train_transform(config, 24)(picture(RGBA[:18]), ExampleRng(0)(0, 0))
  np.testing.assert_allclose(train, eval_transform(config, 24)(RGBA[:18]), atol=2.5 / 128)  # two roundings


def test_cutout_greys_a_square():
  image = np.ones((20, 20, 3), np.float32)
  Cutout(1.0)(image, np.random.default_rng(0))
  side = int(np.sqrt((image == 0).all(-1).sum()))
  assert 5 <= side <= 10 and (image == 0).all(-1).sum() == side * side


def test_captions_are_drawn_by_weight():
  captions = {"name": ["n"], "keywords": ["a", "b", "c"], "de": ["d"], "fr": ["f"], "xx": ["never"]}
  config = DataConfig(source=Emoji(languages=("de", "fr")), name_weight=0.5, keywords_weight=0.2, languages_weight=0.3)
  sample, one = caption_transform(config), ExampleRng(0)
  drawn = Counter(sample(captions, one(0, index)) for index in range(4000))
  keywords = sum(number for text, number in drawn.items() if text not in ("n", "d", "f"))
  shares = [number / 4000 for number in (drawn["n"], keywords, drawn["d"], drawn["f"])]
  np.testing.assert_allclose(shares, [0.5, 0.2, 0.15, 0.15], atol=0.03)
  assert "a, b" in drawn and "b, a" in drawn and "never" not in drawn


def test_a_record_without_the_wanted_kinds_gives_its_main_caption():
  assert SampleCaption({"keywords": 1.0})({"name": ["n"], "keywords": []}, ExampleRng(0)(0, 0)) == "n"


@pytest.mark.parametrize(
  "captions, message",
  [
    ({}, "row 7: has no caption"),
    ({"name": []}, "no caption"),
    ({"name": ["a"], "de": [" "]}, "kind 'de' is empty"),
  ],
)
def test_missing_and_empty_captions_name_the_record(captions, message):
  with pytest.raises(DataError, match=message):
    check_captions(captions, "row 7")
