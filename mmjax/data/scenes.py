"""Scenes: coloured shapes on a grid, with a caption, questions, exact answers and the pixels they are about.

Three shapes of different kinds lie in three of 4 x 4 places; colours and places are independent, so the caption of
a scene without its colour words says nothing about them. Answers are balanced: among the questions of one kind
about one shape every answer is as frequent as every other, so a question alone leaves its answer to chance
(1/6 for a colour, 1/4 for a row: .208 over both).
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
"""Of rows from the top, of columns from the left."""
NUMBERS = ("zero", "one", "two", "three")
GRID = len(PLACES)
HELD_OUT_FRACTION = 0.15


@dataclass(frozen=True)
class Shape:
  """One thing in a scene."""

  kind: str
  colour: str
  row: int
  column: int


Scene = tuple[Shape, ...]
"""One shape of each kind, in the order of KINDS."""


@dataclass(frozen=True)
class Question:
  """What is asked, the one right answer, and the shapes it is about."""

  text: str
  answer: str
  about: tuple[Shape, ...]


def ask_colour(scene: Scene, target: int) -> Question:
  shape = scene[target]
  return Question(f"what colour is the {shape.kind}?", shape.colour, (shape,))


def ask_row(scene: Scene, target: int) -> Question:
  shape = scene[target]
  return Question(f"which row is the {shape.kind} in?", PLACES[shape.row], (shape,))


def ask_column(scene: Scene, target: int) -> Question:
  shape = scene[target]
  return Question(f"which column is the {shape.kind} in?", PLACES[shape.column], (shape,))


def ask_shape(scene: Scene, target: int) -> Question | None:
  """None where no single shape has the colour that the target (counted over the colours) asks for."""
  colour = list(COLOURS)[target]
  about = tuple(shape for shape in scene if shape.colour == colour)
  return Question(f"which shape is {colour}?", about[0].kind, about) if len(about) == 1 else None


def ask_count(scene: Scene, target: int) -> Question:
  colour = list(COLOURS)[target]
  about = tuple(shape for shape in scene if shape.colour == colour)
  return Question(f"how many shapes are {colour}?", NUMBERS[len(about)], about)


@dataclass(frozen=True)
class Kind:
  """A kind of question: how it is asked about a target (a shape, or a colour), and its answers."""

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


def is_held_out(scene: Scene) -> bool:
  """True where a scene belongs to the held-out split: a property of the scene, so no picture is in both splits."""
  digest = hashlib.sha256(repr(scene).encode()).digest()
  return int.from_bytes(digest[:8], "big") < HELD_OUT_FRACTION * 2**64


def example(
  index: int, *, seed: int, held_out: bool, questions: Sequence[str], caption_shapes: int = len(KINDS)
) -> tuple[Scene, Question, str]:
  """The index-th scene of a split with its question and caption: a function of the arguments alone.

  Kinds of question take turns, then targets, then answers; of all scenes of the split that have this answer one
  is drawn.
  """
  turn, name = divmod(index, len(questions))
  kind = QUESTIONS[questions[name]]
  turn, target = divmod(turn, kind.targets)
  answer = kind.answers[turn % len(kind.answers)]
  rng = random.Random(f"{seed} {held_out} {index}")
  while True:
    scene = _draw(rng)
    question = kind.ask(scene, target)
    if question is not None and question.answer == answer and is_held_out(scene) == held_out:
      return scene, question, caption(scene, rng, caption_shapes)


def caption(scene: Scene, rng: random.Random, shapes: int = len(KINDS)) -> str:
  """So many of the shapes with colour and row, in any order."""
  said = [f"{shape.colour} {shape.kind} in the {PLACES[shape.row]} row" for shape in scene]
  rng.shuffle(said)
  return ", ".join(said[:shapes])


def draw(scene: Scene, size: int) -> UInt8[np.ndarray, "size size 3"]:
  """The picture: flat colours on white, no pixel of one shape touching another's."""
  pixels = np.full((size, size, 3), 255, np.uint8)
  for shape in scene:
    pixels[mask((shape,), size)] = COLOURS[shape.colour]
  return pixels


def mask(shapes: Sequence[Shape], size: int) -> Bool[np.ndarray, "size size"]:
  """True on the pixels of the shapes."""
  pixels, cell = np.zeros((size, size), bool), size // GRID
  for shape in shapes:
    top, left = shape.row * cell, shape.column * cell
    pixels[top : top + cell - 1, left : left + cell - 1] = _stamp(shape.kind, cell - 1)
  return pixels


def concept(scene: Scene) -> int:
  """The same number for the same scene."""
  return concept_number(repr(scene))


def png(pixels: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "PNG")
  return buffer.getvalue()


def _draw(rng: random.Random) -> Scene:
  places = rng.sample(range(GRID * GRID), len(KINDS))
  colours = rng.choices(list(COLOURS), k=len(KINDS))
  return tuple(Shape(kind, colour, *divmod(place, GRID)) for kind, colour, place in zip(KINDS, colours, places))


@functools.cache
def _stamp(kind: str, side: int) -> Bool[np.ndarray, "side side"]:
  """The pixels of a shape as large as its box."""
  y, x = np.mgrid[:side, :side] + 0.5 - side / 2  # from the centre
  if kind == "circle":
    return x**2 + y**2 <= (side / 2) ** 2
  if kind == "triangle":
    return np.abs(x) <= (y + side / 2) / 2
  return np.ones((side, side), bool)
