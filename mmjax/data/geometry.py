"""Geometric augmentation: each transform is a matrix, their product is applied by one resampling in C.

A matrix maps the output, as (u, v, 1) with u and v from -1 to 1, to pixel coordinates of the input.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float
from PIL import Image

Matrix = Float[np.ndarray, "3 3"]


class Geometry(Protocol):
  """A random change of the output's coordinates."""

  def matrix(self, rng: np.random.Generator) -> Matrix: ...


@dataclass(frozen=True)
class RandomResizedCrop:
  """A random part of the picture (Szegedy et al. 2015): `scale` of its area, `ratio` of width to height.

  A scale of (1, 1) switches it off: what is left is the square in the middle, as evaluation sees it.
  """

  scale: tuple[float, float] = (0.6, 1.0)
  ratio: tuple[float, float] = (0.8, 1.25)

  def box(self, width: int, height: int, rng: np.random.Generator) -> Matrix:
    """The crop as a matrix from the output to pixels; one that does not fit is narrowed until it does."""
    draws = rng.random(4).tolist()
    if self.scale[0] == self.scale[1] == 1:
      left, top, right, bottom = center_box(width, height)
      return box_matrix(left, top, right - left, bottom - top)
    area = width * height * (self.scale[0] + draws[0] * (self.scale[1] - self.scale[0]))
    low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
    ratio = math.exp(low + draws[1] * (high - low))
    crop_width, crop_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
    if self.scale[1] <= 1:  # a scale above 1 asks for a crop larger than the picture, transparent around it
      crop_width, crop_height = min(width, crop_width), min(height, crop_height)
    x, y = draws[2] * (width - crop_width), draws[3] * (height - crop_height)
    return box_matrix(x, y, crop_width, crop_height)


@dataclass(frozen=True)
class RandomRotation:
  """Up to `degrees` either way, and a horizontal shear of up to `shear` degrees."""

  degrees: float = 10.0
  shear: float = 0.0

  def matrix(self, rng: np.random.Generator) -> Matrix:
    draws = rng.random(2).tolist()
    angle = math.radians(self.degrees * (2 * draws[0] - 1))
    slant = math.tan(math.radians(self.shear * (2 * draws[1] - 1)))
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, cos * slant - sin, 0.0], [sin, sin * slant + cos, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class RandomFlip:
  """Mirrors left and right with a probability; only where it does not change the meaning."""

  probability: float = 0.5

  def matrix(self, rng: np.random.Generator) -> Matrix:
    return np.diag([-1.0 if rng.random() < self.probability else 1.0, 1.0, 1.0])


def box_matrix(x: float, y: float, width: float, height: float) -> Matrix:
  """The matrix that fits a box of the input into the output."""
  return np.array([[width / 2, 0.0, x + width / 2], [0.0, height / 2, y + height / 2], [0.0, 0.0, 1.0]])


def center_box(width: int, height: int) -> tuple[float, float, float, float]:
  """The largest square in the middle, as (left, top, right, bottom)."""
  side = min(width, height)
  left, top = (width - side) / 2, (height - side) / 2
  return left, top, left + side, top + side


def warp(image: Image.Image, box: Matrix, transforms: Sequence[Matrix], size: int) -> Image.Image:
  """The picture seen through the matrices, resampled bilinearly to size x size; outside of it is transparent.

  Shrinking by more than two would alias, so whole factors are averaged first.
  """
  matrix = box
  for transform in transforms:
    matrix = matrix @ transform
  (a, b, c), (d, e, f), _ = matrix.tolist()
  factor = int(2 * min(math.hypot(a, d), math.hypot(b, e)) / size)
  if factor >= 2:
    image = image.reduce(factor)
    a, b, c, d, e, f = (value / factor for value in (a, b, c, d, e, f))
  scale = 2 / size  # output pixels to (u, v); Pillow samples at pixel centres itself
  data = (a * scale, b * scale, c - a - b, d * scale, e * scale, f - d - e)
  return image.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
