"""The oracle of scenes: it reads what was drawn, also through blur and noise, and compares it with captions."""

import random

import numpy as np
import pytest

from mmjax.data.scenes import GRID_LAYOUT, Shape, caption, draw
from mmjax.data.scenes_reading import agreement, read_caption, read_scene


@pytest.mark.parametrize("size", [20, 32])
def test_what_was_drawn_is_read(size):
  rng, noise = random.Random(0), np.random.default_rng(0)
  for _ in range(30):
    scene = GRID_LAYOUT.place(rng)
    pixels = draw(scene, size)
    ordered = tuple(sorted(scene, key=lambda shape: (shape.row, shape.column)))
    assert read_scene(pixels) == ordered
    noisy = np.clip(pixels + noise.normal(0, 20, pixels.shape), 0, 255).astype(np.uint8)
    assert size < 32 or read_scene(noisy) == ordered
    said = caption(scene, rng)
    assert all(values.tolist() == [1, 1, 1] for values in agreement(said, read_scene(pixels)).values())


def test_agreement_tells_what_is_wrong():
  shapes = (Shape("circle", "red", 0, 1), Shape("square", "blue", 2, 2))
  said = "red circle in the second row, green square in the third row, red triangle in the first row"
  found = {name: values.tolist() for name, values in agreement(said, shapes).items()}
  assert found == {"shape": [1, 1, 0], "colour": [1, 0, 0], "place": [0, 1, 0], "all": [0, 0, 0]}
  twice = agreement("red circle in the first row", (shapes[0], Shape("circle", "blue", 3, 3)))
  assert twice["shape"].tolist() == [0]  # two circles


def test_a_white_image_has_no_shapes():
  assert read_scene(np.full((32, 32, 3), 255, np.uint8)) == ()


def test_other_captions_and_small_images_are_refused():
  with pytest.raises(ValueError, match="too small"):
    read_scene(np.zeros((16, 16, 3), np.uint8))
  with pytest.raises(ValueError, match="no caption of the scenes"):
    read_caption("a red circle")
