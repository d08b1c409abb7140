"""An oracle for scenes: reads the shapes of the grid from pixels, and compares them with a caption."""

import functools
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from mmjax.data.scenes import COLOURS, GRID, KINDS, PLACES, Shape, draw

_LEAST = 20  # pixels
_SAID = re.compile(rf"({'|'.join(COLOURS)}) ({'|'.join(KINDS)}) in the ({'|'.join(PLACES)}) row")


class Said(NamedTuple):
  """One shape, as a caption names it."""

  colour: str
  kind: str
  row: int


def read_scene(pixels: UInt8[np.ndarray, "size size 3"]) -> tuple[Shape, ...]:
  """Find the shapes in the cells of an image, which may be blurred or wrong.

  Each cell is compared with a white one and with every shape in every colour. The nearest one, by the squared
  difference of the pixels, is what the cell shows.

  Args:
    pixels: an image whose side is a multiple of 4, at least 20. In smaller ones, a circle is a square.
  Returns: the shapes, row by row. Cells that are nearest to white have none.
  Raises:
    ValueError: the image is too small.
  """
  size = len(pixels)
  if size < _LEAST:
    raise ValueError(f"an image of {size} pixels is too small to tell circles from squares: use at least {_LEAST}")
  cell = size // GRID
  shapes, stamps = _stamps(size)
  found = []
  for row in range(GRID):
    for column in range(GRID):
      own = pixels[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell].astype(np.float32)
      nearest = int(np.square(stamps - own).sum(axis=(1, 2, 3)).argmin(axis=0))
      if nearest:
        found.append(Shape(*shapes[nearest - 1], row, column))
  return tuple(found)


def read_caption(caption: str) -> list[Said]:
  """Read what a caption of the scenes says.

  Raises:
    ValueError: a part of the caption is not of the form "COLOUR KIND in the PLACE row".
  """
  parts = [_SAID.fullmatch(part.strip()) for part in caption.split(",")]
  if not all(parts):
    raise ValueError(f"{caption!r} is no caption of the scenes, such as 'red circle in the first row'")
  return [Said(part[1], part[2], PLACES.index(part[3])) for part in parts if part is not None]


def agreement(caption: str, shapes: Sequence[Shape]) -> dict[str, Float[np.ndarray, " said"]]:
  """Compare a caption with the shapes of an image.

  Args:
    caption: a caption of the scenes.
    shapes: the shapes that the image shows.
  Returns: for each shape that is said, 1 if it is right: "shape", exactly one cell shows this kind; "colour", that one
    has the colour; "place", that one is in the row; "all", all three.
  """
  rows = []
  for said in read_caption(caption):
    alike = [shape for shape in shapes if shape.kind == said.kind]
    shape = alike[0] if len(alike) == 1 else None
    colour, place = shape is not None and shape.colour == said.colour, shape is not None and shape.row == said.row
    rows.append((shape is not None, colour, place, colour and place))
  return dict(zip(("shape", "colour", "place", "all"), np.array(rows, np.float32).T, strict=True))


@functools.cache
def _stamps(size: int) -> tuple[list[tuple[str, str]], Float[np.ndarray, "stamps cell cell 3"]]:
  """(kind and colour of each stamp but the first, the pixels of a white cell and of each stamp)."""
  names = [(kind, colour) for kind in KINDS for colour in COLOURS]
  cell = size // GRID
  cells = [draw((Shape(*name, 0, 0),), size)[:cell, :cell] for name in names]
  white = np.full_like(cells[0], 255)
  return names, np.stack([white, *cells]).astype(np.float32)
