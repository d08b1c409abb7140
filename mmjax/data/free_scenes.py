"""Scenes whose shapes lie anywhere, in three sizes, over each other and over distractors.

Harder than the grid (mmjax.data.scenes), where a cell is a patch of a vision transformer: a shape lies across patches,
a part of it may be hidden, and colours of distractors are no evidence. The row and the column of a shape are those of
the centre of its box, which keeps a distance from their borders.
"""

import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from jaxtyping import Bool, Int, UInt8

from mmjax.data.scenes import COLOURS, GRID, KINDS, Layout, Scene, Shape, stamp

UNITS = 64
"""Places and sides are in units of 1 / 64 of the image, and so the same in images of any size."""
SIDES = (12, 18, 24)
"""A cell of the grid is 16."""
DISTRACTORS = ("cross", "diamond")
CLEAR = 0.5
"""Share of every shape that must be visible."""
MARGIN = 2
"""Least distance of a centre from the border of its row and its column."""


@dataclass(frozen=True)
class Placed(Shape):
  """A shape anywhere in the image. Of two shapes, the one with the higher `height` hides the other."""

  left: int
  top: int
  side: int
  height: int


def free_layout(distractors: int) -> Layout:
  """Make the layout with this many distractors."""
  return Layout(functools.partial(_place, distractors), is_clear, draw, mask)


def _place(distractors: int, rng: random.Random) -> Scene:
  kinds = [*KINDS, *rng.choices(DISTRACTORS, k=distractors)]
  heights = rng.sample(range(len(kinds)), len(kinds))
  return tuple(_shape(rng, kind, height) for kind, height in zip(kinds, heights, strict=True))


def _shape(rng: random.Random, kind: str, height: int) -> Placed:
  colour, side = rng.choice(list(COLOURS)), rng.choice(SIDES)
  left, top = (_start(rng, side) for _ in range(2))
  row, column = ((start + side // 2) * GRID // UNITS for start in (top, left))
  return Placed(kind, colour, row, column, left, top, side, height)


def _start(rng: random.Random, side: int) -> int:
  cell = UNITS // GRID
  while True:
    start = rng.randint(0, UNITS - side)
    if MARGIN <= (start + side // 2) % cell <= cell - MARGIN:
      return start


def is_clear(scene: Scene) -> bool:
  """True if at least half of every shape can be seen, and no two of one colour run into each other."""
  shapes = cast(tuple[Placed, ...], scene)
  if any(one.colour == two.colour and _touch(one, two) for one, two in itertools.combinations(shapes, 2)):
    return False
  front = _front(scene, UNITS)
  whole = [stamp(shape.kind, shape.side).sum() for shape in shapes]
  return all((front == place).sum() >= CLEAR * total for place, total in enumerate(whole))


def _touch(one: Placed, two: Placed) -> bool:
  """True if the boxes of two shapes overlap or are neighbours."""
  return all(
    first <= second + two.side and second <= first + one.side
    for first, second in ((one.left, two.left), (one.top, two.top))
  )


def draw(scene: Scene, size: int) -> UInt8[np.ndarray, "size size 3"]:
  """Draw a scene in flat colours on white."""
  colours = np.array([*(COLOURS[shape.colour] for shape in scene), (255, 255, 255)], np.uint8)
  return colours[_front(scene, size)]


def mask(scene: Scene, shapes: Sequence[Shape], size: int) -> Bool[np.ndarray, "size size"]:
  """True on the pixels that show one of the shapes."""
  return np.isin(_front(scene, size), [scene.index(shape) for shape in shapes])


def _front(scene: Scene, size: int) -> Int[np.ndarray, "size size"]:
  """Index of the shape that each pixel shows; -1 for the background."""
  front = np.full((size, size), -1)
  shapes = cast(tuple[Placed, ...], scene)
  for place, shape in sorted(enumerate(shapes), key=lambda pair: pair[1].height):
    top, left, side = (value * size // UNITS for value in (shape.top, shape.left, shape.side))
    front[top : top + side, left : left + side][stamp(shape.kind, side)] = place
  return front
