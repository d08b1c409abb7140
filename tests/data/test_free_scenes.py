"""Scenes of the layout "free": what is drawn, asked and marked is found again by looking at each pixel by itself."""

import dataclasses
import io
import random
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mmjax.data import COLOURS, DataConfig, Scenes, make_source
from mmjax.data.free_scenes import DISTRACTORS, SIDES, Placed, draw, free_layout, is_clear, mask
from mmjax.data.scenes import KINDS, PLACES, QUESTIONS, example

LAYOUT = free_layout(2)
EXAMPLES = [
  example(index, seed=3, held_out=False, questions=tuple(QUESTIONS), layout=LAYOUT, caption_shapes=3)
  for index in range(150)
]


def inside(shape, y, x):
  """True if the centre of pixel (y, x) of a 64-pixel image lies in a shape."""
  down, right, half = y + 0.5 - shape.top - shape.side / 2, x + 0.5 - shape.left - shape.side / 2, shape.side / 2
  if max(abs(down), abs(right)) > half:
    return False
  return {
    "circle": down**2 + right**2 <= half**2,
    "square": True,
    "triangle": abs(right) <= (down + half) / 2,
    "cross": min(abs(down), abs(right)) <= shape.side / 6,
    "diamond": abs(down) + abs(right) <= half,
  }[shape.kind]


def test_every_pixel_shows_the_highest_shape_and_the_mask_is_what_shows_of_the_asked_ones():
  for scene, question, _ in EXAMPLES[:6]:
    pixels, asked = draw(scene, 64), mask(scene, question.about, 64)
    for y, x in np.ndindex(64, 64):
      here = sorted((shape for shape in scene if inside(shape, y, x)), key=lambda shape: shape.height)
      assert tuple(pixels[y, x]) == (COLOURS[here[-1].colour] if here else (255, 255, 255))
      assert asked[y, x] == bool(here and here[-1] in question.about)


def test_shapes_lie_across_cells_over_each_other_in_three_sizes_among_distractors():
  scenes = [scene for scene, _, _ in EXAMPLES]
  shapes = [shape for scene in scenes for shape in scene]
  assert {shape.side for shape in shapes} == set(SIDES)
  crossing = [shape.left // 16 != (shape.left + shape.side - 1) // 16 for shape in shapes]
  assert np.mean(crossing) > 0.8
  hidden = [mask(scene, (shape,), 64).sum() < mask((shape,), (shape,), 64).sum() for scene in scenes for shape in scene]
  assert 0.1 < np.mean(hidden) < 0.6
  assert all(tuple(shape.kind for shape in scene[:3]) == KINDS for scene in scenes)
  assert {shape.kind for scene in scenes for shape in scene[3:]} == set(DISTRACTORS)
  assert all(len(scene) == 5 for scene in scenes)


def test_rows_and_columns_are_those_of_the_centre():
  for scene, _, _ in EXAMPLES:
    for shape in scene:
      down, right = (shape.top + shape.side / 2) / 16, (shape.left + shape.side / 2) / 16
      assert (shape.row, shape.column) == (int(down), int(right))
      assert all(abs(place - border) >= 0.1 for place in (down, right) for border in (1, 2, 3))


def test_half_of_every_shape_is_visible_and_equal_colours_do_not_touch():
  square, circle = (Placed(kind, "red", 1, 1, 10, 10, 18, height) for height, kind in enumerate(("square", "circle")))
  assert not is_clear((square, dataclasses.replace(circle, colour="blue", side=24)))
  assert is_clear((square, dataclasses.replace(circle, colour="blue", left=24)))
  assert not is_clear((square, dataclasses.replace(circle, left=28)))  # neighbours
  assert is_clear((square, dataclasses.replace(circle, left=29)))
  for scene, _, _ in EXAMPLES:
    for shape in scene:
      assert mask(scene, (shape,), 64).sum() >= 0.5 * mask((shape,), (shape,), 64).sum()


def test_answers_are_true_and_as_frequent_as_each_other():
  counts: Counter = Counter()
  for scene, question, caption in EXAMPLES:
    counts[question.text, question.answer] += 1
    words = question.text.strip("?").split()
    named = [shape for shape in scene if shape.kind in words]
    coloured = [shape for shape in scene if shape.colour == words[-1]]
    match words[:2]:
      case ["what", "colour"]:
        assert [question.answer] == [shape.colour for shape in named] and question.about == tuple(named)
      case ["which", "shape"]:
        assert [question.answer] == [shape.kind for shape in coloured] and question.answer in KINDS
      case ["how", "many"]:
        assert question.answer == ("zero", "one", "two", "three")[len(coloured)]  # distractors count
      case _:
        assert question.answer == PLACES[getattr(named[0], words[1])]
    said = {f"{shape.colour} {shape.kind} in the {PLACES[shape.row]} row" for shape in scene[:3]}
    assert set(caption.split(", ")) == said
  by_question: dict = {}
  for (asked, _), count in counts.items():
    by_question.setdefault(asked, []).append(count)
  assert all(max(found) - min(found) <= 1 for found in by_question.values())


def test_colours_are_independent_of_kinds():
  rng = random.Random(0)
  scenes = [LAYOUT.place(rng) for _ in range(3000)]
  for place in range(3):
    shares = np.array(list(Counter(scene[place].colour for scene in scenes).values())) / 3000
    assert len(shares) == 6 and abs(shares - 1 / 6).max() < 0.03


def pixels(record, field="image"):
  return np.asarray(Image.open(io.BytesIO(record[field])))


def test_as_a_source(tmp_path):
  config = DataConfig(source=Scenes(layout="free", distractors=2, examples=30), dir=str(tmp_path))
  source, held_out = make_source(config, "train"), make_source(config, "validation")
  assert not {source[n]["image"] for n in range(30)} & {held_out[n]["image"] for n in range(5)}
  for index in range(30):
    scene, question, caption = example(index, seed=0, held_out=False, questions=("colour", "row"), layout=LAYOUT)
    record = source[index]
    assert (record["question"], record["answer"]) == (question.text, question.answer)
    assert record["captions"] == {"name": [caption]}
    np.testing.assert_array_equal(pixels(record), draw(scene, 32))
    np.testing.assert_array_equal(pixels(record, "relevance") > 0, mask(scene, question.about, 32))
  grid = make_source(dataclasses.replace(config, source=Scenes(examples=30)), "train")  # built beside it
  assert all(pixels(grid[n]).shape == (32, 32, 3) for n in range(30)) and grid[0]["image"] != source[0]["image"]


@pytest.mark.parametrize(
  ("change", "said"),
  [
    ({"distractors": 1}, "distractors is 1: it must be 0 with layout grid"),
    ({"distractors": 5, "layout": "free"}, "0 to 4 with layout free"),
    ({"distractors": -1, "layout": "free"}, "distractors is -1"),
    ({"size": 28, "layout": "free"}, "size is 28: it must be a multiple of 4 and at least 32"),
  ],
)
def test_impossible_scenes_are_refused(change, said):
  with pytest.raises(ValueError, match=said):
    Scenes(**change)
