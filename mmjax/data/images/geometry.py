"""Geometric augmentation. Each transform is a matrix, and the product of all is applied in one resampling.

A matrix maps positions of the output, (u, v, 1) with u and v from -1 to 1, to pixel coordinates of the input.
"""

import dataclasses
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

  def matrix(self, rng: np.random.Generator) -> Matrix:
    """Draw the matrix, which maps output coordinates to output coordinates."""
    ...


@dataclass(frozen=True)
class RandomResizedCrop:
  """A random crop of the image (Szegedy et al. 2015).

  `scale` is the range of the crop's share of the image area, and `ratio` is the range of width / height. A scale of
  (1, 1) turns the randomness off: the crop is then the middle square, or the whole image with `squash`, as in
  evaluation.
  """

  scale: tuple[float, float] = (0.6, 1.0)
  ratio: tuple[float, float] = (0.8, 1.25)
  squash: bool = False

  def box(self, width: int, height: int, rng: np.random.Generator) -> Matrix:
    """Draw a crop, as a matrix from the output to pixels. A side that is longer than the image is shortened."""
    draws = rng.random(4).tolist()
    if self.scale[0] == self.scale[1] == 1:
      left, top, right, bottom = (0, 0, width, height) if self.squash else center_box(width, height)
      return box_matrix(left, top, right - left, bottom - top)
    area = width * height * (self.scale[0] + draws[0] * (self.scale[1] - self.scale[0]))
    low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
    ratio = math.exp(low + draws[1] * (high - low))
    crop_width, crop_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
    if self.scale[1] <= 1:  # with a scale above 1, the crop may be larger than the image, with transparent margins
      crop_width, crop_height = min(width, crop_width), min(height, crop_height)
    x, y = draws[2] * (width - crop_width), draws[3] * (height - crop_height)
    return box_matrix(x, y, crop_width, crop_height)

  def native_box(self, width: int, height: int, rng: np.random.Generator) -> Matrix:
    """Draw a crop as `box`, with `ratio` relative to the shape of the image. A scale of (1, 1) is the whole image."""
    unit = dataclasses.replace(self, squash=True).box(1, 1, rng)
    return np.diag([width, height, 1.0]) @ unit


@dataclass(frozen=True)
class RandomRotation:
  """A random rotation of up to `degrees` in both directions, and a horizontal shear of up to `shear` degrees."""

  degrees: float = 10.0
  shear: float = 0.0

  def matrix(self, rng: np.random.Generator) -> Matrix:
    """Draw the matrix."""
    draws = rng.random(2).tolist()
    angle = math.radians(self.degrees * (2 * draws[0] - 1))
    slant = math.tan(math.radians(self.shear * (2 * draws[1] - 1)))
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, cos * slant - sin, 0.0], [sin, sin * slant + cos, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class RandomFlip:
  """A horizontal flip with a probability. Use it only if a flip does not change the meaning of the images."""

  probability: float = 0.5

  def matrix(self, rng: np.random.Generator) -> Matrix:
    """Draw the matrix."""
    return np.diag([-1.0 if rng.random() < self.probability else 1.0, 1.0, 1.0])


def box_matrix(x: float, y: float, width: float, height: float) -> Matrix:
  """Make the matrix that maps the output to a box of the input.

  Args:
    x: left side of the box, in pixels of the input.
    y: top side of the box.
    width: width of the box.
    height: height of the box.
  Returns: the matrix.
  """
  return np.array([[width / 2, 0.0, x + width / 2], [0.0, height / 2, y + height / 2], [0.0, 0.0, 1.0]])


def center_box(width: int, height: int) -> tuple[float, float, float, float]:
  """Largest square in the middle of an image, as (left, top, right, bottom)."""
  side = min(width, height)
  left, top = (width - side) / 2, (height - side) / 2
  return left, top, left + side, top + side


def warp(image: Image.Image, box: Matrix, transforms: Sequence[Matrix], size: int | tuple[int, int]) -> Image.Image:
  """Resample an image through matrices.

  Resampling is bilinear. Shrinking by more than 2 would alias, so the image is first reduced by an integer factor, by
  averaging. Positions outside the image are transparent.

  Args:
    image: the image.
    box: matrix from the output to pixels of the image.
    transforms: matrices that are multiplied to `box` from the right, in order.
    size: side of the result in pixels, or its width and height.
  Returns: the image.
  """
  width, height = (size, size) if isinstance(size, int) else size
  matrix = box
  for transform in transforms:
    matrix = matrix @ transform
  (a, b, c), (d, e, f), _ = matrix.tolist()
  factor = int(2 * min(math.hypot(a, d) / width, math.hypot(b, e) / height))
  if factor >= 2:
    image = image.reduce(factor)
    a, b, c, d, e, f = (value / factor for value in (a, b, c, d, e, f))
  across, down = 2 / width, 2 / height  # from output pixels to (u, v); Pillow itself samples at pixel centres
  data = (a * across, b * down, c - a - b, d * across, e * down, f - d - e)
  return image.transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
