"""Scenes of coloured shapes, with captions, questions, exact answers and the pixels that they are about.

A scene has three shapes of different kinds in three of 4 x 4 cells (layout "grid"), or anywhere, in three sizes, and
over each other, among distractors (layout "free", mmjax.data.free_scenes). Colours and positions are independent, so a
caption without its colour words has no information about the colours. Answers are balanced: for one kind of question
about one shape, all answers are equally frequent. So a model that sees only the question has chance accuracy (1/6 for a
colour, 1/4 for a row, .208 over both).
"""

import functools
import hashlib
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from mmjax.data.records import concept_number

COLOURS = {
  "red": (220, 30, 30),
  "green": (30, 160, 60),
  "blue": (40, 70, 220),
  "yellow": (235, 205, 30),
  "purple": (145, 50, 180),
  "orange": (245, 130, 25),
}
KINDS = ("circle", "square", "triangle")
PLACES = ("first", "second", "third", "fourth")
"""Names of rows from the top, and of columns from the left."""
NUMBERS = ("zero", "one", "two", "three")
GRID = len(PLACES)
HELD_OUT_FRACTION = 0.15


@dataclass(frozen=True)
class Shape:
  """One shape of a scene."""

  kind: str
  colour: str
  row: int
  column: int


Scene = tuple[Shape, ...]
"""One shape of each kind, in the order of KINDS; distractors, which are of other kinds, follow."""


@dataclass(frozen=True)
class Question:
  """A question, its only correct answer, and the shapes that it is about."""

  text: str
  answer: str
  about: tuple[Shape, ...]


def ask_colour(scene: Scene, target: int) -> Question:
  """Ask for the colour of a shape. `target` is an index of KINDS."""
  shape = scene[target]
  return Question(f"what colour is the {shape.kind}?", shape.colour, (shape,))


def ask_row(scene: Scene, target: int) -> Question:
  """Ask for the row of a shape. `target` is an index of KINDS."""
  shape = scene[target]
  return Question(f"which row is the {shape.kind} in?", PLACES[shape.row], (shape,))


def ask_column(scene: Scene, target: int) -> Question:
  """Ask for the column of a shape. `target` is an index of KINDS."""
  shape = scene[target]
  return Question(f"which column is the {shape.kind} in?", PLACES[shape.column], (shape,))


def ask_shape(scene: Scene, target: int) -> Question | None:
  """Ask for the shape of a colour. `target` is an index of COLOURS. None unless exactly one shape has this colour."""
  colour = list(COLOURS)[target]
  about = tuple(shape for shape in scene if shape.colour == colour)
  known = len(about) == 1 and about[0].kind in KINDS
  return Question(f"which shape is {colour}?", about[0].kind, about) if known else None


def ask_count(scene: Scene, target: int) -> Question | None:
  """Ask for the number of shapes of a colour. `target` is an index of COLOURS. None for a number without a name."""
  colour = list(COLOURS)[target]
  about = tuple(shape for shape in scene if shape.colour == colour)
  if len(about) >= len(NUMBERS):
    return None
  return Question(f"how many shapes are {colour}?", NUMBERS[len(about)], about)


@dataclass(frozen=True)
class Kind:
  """A kind of question.

  Attributes:
    ask: makes the question about a target of a scene.
    targets: number of targets (shapes or colours).
    answers: all answers.
  """

  ask: Callable[[Scene, int], Question | None]
  targets: int
  answers: tuple[str, ...]


QUESTIONS = {
  "colour": Kind(ask_colour, len(KINDS), tuple(COLOURS)),
  "row": Kind(ask_row, len(KINDS), PLACES),
  "column": Kind(ask_column, len(KINDS), PLACES),
  "shape": Kind(ask_shape, len(COLOURS), KINDS),
  "count": Kind(ask_count, len(COLOURS), NUMBERS),
}


@dataclass(frozen=True)
class Layout:
  """Placement of the shapes of a scene.

  Attributes:
    place: draws a scene.
    is_clear: True for a scene whose shapes can be recognised.
    draw: (scene, size) -> pixels.
    mask: (scene, shapes of it, size) -> True on the pixels that show them.
  """

  place: Callable[[random.Random], Scene]
  is_clear: Callable[[Scene], bool]
  draw: Callable[[Scene, int], UInt8[np.ndarray, "size size 3"]]
  mask: Callable[[Scene, Sequence[Shape], int], Bool[np.ndarray, "size size"]]


def is_held_out(scene: Scene) -> bool:
  """True if a scene is in the held-out split. This depends on the scene alone, so no image is in both splits."""
  digest = hashlib.sha256(repr(scene).encode()).digest()
  return int.from_bytes(digest[:8], "big") < HELD_OUT_FRACTION * 2**64


def example(
  index: int,
  *,
  seed: int,
  held_out: bool,
  questions: Sequence[str],
  caption_shapes: int = len(KINDS),
  layout: "Layout | None" = None,
) -> tuple[Scene, Question, str]:
  """Make a scene of a split with its question and caption. The result depends on the arguments alone.

  The index cycles through the kinds of questions first, then through targets, then through answers. The scene is drawn
  from all scenes of the split with this answer.

  Args:
    index: number of the example.
    seed: seed of the random choices.
    held_out: True for the held-out split.
    questions: kinds of questions, names of QUESTIONS.
    caption_shapes: number of shapes in the caption.
    layout: placement of the shapes; None: the grid.
  Returns: (scene, question, caption).
  """
  layout = layout or GRID_LAYOUT
  turn, name = divmod(index, len(questions))
  kind = QUESTIONS[questions[name]]
  turn, target = divmod(turn, kind.targets)
  answer = kind.answers[turn % len(kind.answers)]
  rng = random.Random(f"{seed} {held_out} {index}")
  while True:
    scene = layout.place(rng)
    question = kind.ask(scene, target)
    fits = question is not None and question.answer == answer and is_held_out(scene) == held_out
    if question is not None and fits and layout.is_clear(scene):
      return scene, question, caption(scene, rng, caption_shapes)


def caption(scene: Scene, rng: random.Random, shapes: int = len(KINDS)) -> str:
  """Describe `shapes` random shapes of a scene by colour and row, in random order."""
  said = [f"{shape.colour} {shape.kind} in the {PLACES[shape.row]} row" for shape in scene[: len(KINDS)]]
  rng.shuffle(said)
  return ", ".join(said[:shapes])


def draw(scene: Scene, size: int) -> UInt8[np.ndarray, "size size 3"]:
  """Draw a scene of the grid in flat colours on white. The shapes do not touch."""
  pixels = np.full((size, size, 3), 255, np.uint8)
  for shape in scene:
    pixels[mask((shape,), size)] = COLOURS[shape.colour]
  return pixels


def mask(shapes: Sequence[Shape], size: int) -> Bool[np.ndarray, "size size"]:
  """True on the pixels of shapes of the grid."""
  pixels, cell = np.zeros((size, size), bool), size // GRID
  for shape in shapes:
    top, left = shape.row * cell, shape.column * cell
    pixels[top : top + cell - 1, left : left + cell - 1] = stamp(shape.kind, cell - 1)
  return pixels


def concept(scene: Scene) -> int:
  """Number that identifies a scene."""
  return concept_number(repr(scene))


def png(pixels: np.ndarray) -> bytes:
  """Encode pixels as PNG."""
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "PNG")
  return buffer.getvalue()


def _draw(rng: random.Random) -> Scene:
  places = rng.sample(range(GRID * GRID), len(KINDS))
  colours = rng.choices(list(COLOURS), k=len(KINDS))
  return tuple(Shape(kind, colour, *divmod(place, GRID)) for kind, colour, place in zip(KINDS, colours, places))


GRID_LAYOUT = Layout(_draw, lambda scene: True, draw, lambda scene, shapes, size: mask(shapes, size))


@functools.cache
def stamp(kind: str, side: int) -> Bool[np.ndarray, "side side"]:
  """Pixels of a shape that fills its box."""
  y, x = np.mgrid[:side, :side] + 0.5 - side / 2  # distance from the centre
  match kind:
    case "circle":
      return x**2 + y**2 <= (side / 2) ** 2
    case "triangle":
      return np.abs(x) <= (y + side / 2) / 2
    case "cross":
      return np.minimum(np.abs(x), np.abs(y)) <= side / 6
    case "diamond":
      return np.abs(x) + np.abs(y) <= side / 2
  return np.ones((side, side), bool)
