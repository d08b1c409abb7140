"""Colour augmentation. Each step is affine in the colours, so all steps together are one matrix."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

# The matrix maps (red, green, blue, 1), with colours from 0 to 1, to new colours.
ColorMatrix = Float[np.ndarray, "4 4"]

LUMA = np.array([0.299, 0.587, 0.114])
WHITE = (1.0, 1.0, 1.0)
_IDENTITY = np.eye(4)
_GREY = np.eye(4)
_GREY[:3, :3] = LUMA
# A change of hue is a rotation around the grey axis of YIQ.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_YIQ_INVERSE = np.linalg.inv(_YIQ)


class Color(Protocol):
  """A random change of the colours."""

  def matrix(self, rng: np.random.Generator) -> ColorMatrix:
    """Draw the matrix."""
    ...


@dataclass(frozen=True)
class ColorJitter:
  """A random change of brightness, contrast, saturation and hue.

  Brightness, contrast and saturation are multiplied by a factor between 1 - x and 1 + x. Hue is rotated by up to x of
  the full circle in both directions.
  """

  brightness: float = 0.3
  contrast: float = 0.3
  saturation: float = 0.4
  hue: float = 0.0

  def matrix(self, rng: np.random.Generator) -> ColorMatrix:
    """Draw the matrix."""
    draws = (2 * rng.random(4) - 1).tolist()
    brightness, contrast = 1 + self.brightness * draws[0], 1 + self.contrast * draws[1]
    saturation = 1 + self.saturation * draws[2]
    matrix = saturation * _IDENTITY + (1 - saturation) * _GREY
    if self.hue:
      matrix[:3, :3] = matrix[:3, :3] @ _hue_rotation(2 * math.pi * self.hue * draws[3])
    matrix[:3] *= brightness * contrast
    matrix[:3, 3] += 0.5 * (1 - contrast)
    return matrix


@dataclass(frozen=True)
class RandomGreyscale:
  """A conversion to grey with a probability."""

  probability: float = 0.1

  def matrix(self, rng: np.random.Generator) -> ColorMatrix:
    """Draw the matrix."""
    return _GREY if rng.random() < self.probability else _IDENTITY


@dataclass(frozen=True)
class RandomBackground:
  """Background of transparent pixels: a random colour with a probability, else white."""

  probability: float = 0.3

  def color(self, rng: np.random.Generator) -> Sequence[float]:
    """Draw the colour, three numbers from 0 to 1."""
    draws = rng.random(4).tolist()
    return draws[1:] if draws[0] < self.probability else WHITE


@dataclass(frozen=True)
class Normalize:
  """Conversion of premultiplied pixels to normalised colours, in one matrix product.

  The pixels are put on a background, their colours are changed and clipped to 0 .. 1, and then normalised with `mean`
  and `std`.
  """

  mean: tuple[float, float, float]
  std: tuple[float, float, float]

  def __call__(
    self,
    pixels: UInt8[np.ndarray, "h w 4"],
    background: Sequence[float],
    matrix: ColorMatrix | None = None,
    out: Float[np.ndarray, "h w 3"] | None = None,
  ) -> Float[np.ndarray, "h w 3"]:
    """Convert pixels.

    With p the premultiplied colour and a the alpha, the result p + (1 - a) background is affine in (p, a).

    Args:
      pixels: premultiplied pixels, from 0 to 255.
      background: colour, three numbers from 0 to 1.
      matrix: change of the colours. None: no change.
      out: array for the result. None: a new array.
    Returns: normalised colours.
    """
    weights, bias = self._affine(background, matrix)
    ones, low, high = _constants(self, pixels.shape[0] * pixels.shape[1])
    out = np.empty((*pixels.shape[:2], 3), np.float32) if out is None else out
    flat = out.reshape(-1, 3)
    np.matmul(pixels.reshape(-1, 4).astype(np.float32), weights, out=flat)
    flat += ones @ bias[None]  # broadcasting over a last axis of 3 is ten times slower
    np.maximum(flat, low, out=flat)
    np.minimum(flat, high, out=flat)
    return out

  def by_opencv(
    self,
    pixels: UInt8[np.ndarray, "h w 4"],
    background: Sequence[float],
    matrix: ColorMatrix | None,
    out: Float[np.ndarray, "h w 3"],
  ) -> None:
    """Convert pixels with OpenCV, in an eighth of the time. The result is equal except for rounding.

    Args:
      pixels: premultiplied pixels, from 0 to 255.
      background: colour, three numbers from 0 to 1.
      matrix: change of the colours. None: no change.
      out: contiguous array for the result.
    Returns: nothing; the result is in `out`.
    """
    import cv2

    weights, bias = self._affine(background, matrix)
    _, low, high = _constants(self, pixels.shape[0] * pixels.shape[1])
    flat = out.reshape(-1, 3)
    if pixels[..., 3].min() == 255:  # opaque: alpha is a constant. OpenCV is fast for 3 to 3 channels
      affine = np.column_stack([weights[:3].T, bias + 255 * weights[3]])
      cv2.transform(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB).astype(np.float32), affine, dst=out)
    else:  # and for 4 to 4 channels
      affine = np.vstack([np.column_stack([weights.T, bias]), np.zeros((1, 5), np.float32)])
      cv2.cvtColor(cv2.transform(pixels.astype(np.float32), affine), cv2.COLOR_RGBA2RGB, dst=out)
    np.maximum(flat, low, out=flat)
    np.minimum(flat, high, out=flat)

  def _affine(
    self, background: Sequence[float], matrix: ColorMatrix | None
  ) -> tuple[Float[np.ndarray, "4 3"], Float[np.ndarray, "3"]]:
    """Weights from (p, a) in 0 .. 255 to normalised colours, and the bias."""
    matrix = _IDENTITY if matrix is None else matrix
    std = np.asarray(self.std)
    change = matrix[:3, :3]
    shown = change @ np.asarray(background)
    weights = np.empty((4, 3), np.float32)
    weights[:3] = change.T / (255 * std)
    weights[3] = shown / (-255 * std)
    return weights, ((shown + matrix[:3, 3] - self.mean) / std).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _constants(normalize: Normalize, pixels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """A column of ones, and the normalised values of black and of white, repeated for each pixel."""
  mean, std = np.asarray(normalize.mean), np.asarray(normalize.std)
  black, white = -mean / std, (1 - mean) / std
  low, high = (np.tile(color.astype(np.float32), (pixels, 1)) for color in (black, white))
  return np.ones((pixels, 1), np.float32), low, high


def _hue_rotation(angle: float) -> Float[np.ndarray, "3 3"]:
  cos, sin = math.cos(angle), math.sin(angle)
  return _YIQ_INVERSE @ np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]]) @ _YIQ
