"""Colour augmentation: every step is affine in the colours, so all of them together are one matrix."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, UInt8

# The matrix maps (red, green, blue, 1) in 0 .. 1 to new colours.
ColorMatrix = Float[np.ndarray, "4 4"]

LUMA = np.array([0.299, 0.587, 0.114])
WHITE = (1.0, 1.0, 1.0)
_IDENTITY = np.eye(4)
_GREY = np.eye(4)
_GREY[:3, :3] = LUMA
# Hue rotates around the grey axis of YIQ.
_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_YIQ_INVERSE = np.linalg.inv(_YIQ)


class Color(Protocol):
  """A random change of the colours."""

  def matrix(self, rng: np.random.Generator) -> ColorMatrix: ...


@dataclass(frozen=True)
class ColorJitter:
  """Brightness, contrast, saturation (factors within 1 - x .. 1 + x), hue (x of the circle either way)."""

  brightness: float = 0.3
  contrast: float = 0.3
  saturation: float = 0.4
  hue: float = 0.0

  def matrix(self, rng: np.random.Generator) -> ColorMatrix:
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
  """Takes the colours away with a probability."""

  probability: float = 0.1

  def matrix(self, rng: np.random.Generator) -> ColorMatrix:
    return _GREY if rng.random() < self.probability else _IDENTITY


@dataclass(frozen=True)
class RandomBackground:
  """What shows through transparent parts: a random colour with a probability, else white."""

  probability: float = 0.3

  def color(self, rng: np.random.Generator) -> Sequence[float]:
    draws = rng.random(4).tolist()
    return draws[1:] if draws[0] < self.probability else WHITE


@dataclass(frozen=True)
class Normalize:
  """Premultiplied pixels on a background, colours changed, clipped to 0 .. 1, normalised: one product."""

  mean: tuple[float, float, float]
  std: tuple[float, float, float]

  def __call__(
    self,
    pixels: UInt8[np.ndarray, "h w 4"],
    background: Sequence[float],
    matrix: ColorMatrix | None = None,
    out: Float[np.ndarray, "h w 3"] | None = None,
  ) -> Float[np.ndarray, "h w 3"]:
    """With p the premultiplied colour, a the alpha: p + (1 - a) background is affine in (p, a)."""
    weights, bias = self._affine(background, matrix)
    ones, low, high = _constants(self, pixels.shape[0] * pixels.shape[1])
    out = np.empty((*pixels.shape[:2], 3), np.float32) if out is None else out
    flat = out.reshape(-1, 3)
    np.matmul(pixels.reshape(-1, 4).astype(np.float32), weights, out=flat)
    flat += ones @ bias[None]  # broadcasting over a trailing axis of three is ten times slower
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
    """The same to rounding, into `out` (contiguous), in an eighth of the time."""
    import cv2

    weights, bias = self._affine(background, matrix)
    _, low, high = _constants(self, pixels.shape[0] * pixels.shape[1])
    flat = out.reshape(-1, 3)
    if pixels[..., 3].min() == 255:  # opaque: alpha is one more constant. OpenCV is quick from three to three channels
      affine = np.column_stack([weights[:3].T, bias + 255 * weights[3]])
      cv2.transform(cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB).astype(np.float32), affine, dst=out)
    else:  # and from four to four
      affine = np.vstack([np.column_stack([weights.T, bias]), np.zeros((1, 5), np.float32)])
      cv2.cvtColor(cv2.transform(pixels.astype(np.float32), affine), cv2.COLOR_RGBA2RGB, dst=out)
    np.maximum(flat, low, out=flat)
    np.minimum(flat, high, out=flat)

  def _affine(
    self, background: Sequence[float], matrix: ColorMatrix | None
  ) -> tuple[Float[np.ndarray, "4 3"], Float[np.ndarray, "3"]]:
    """From (p, a) in 0 .. 255 to normalised colours, and what is added."""
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
  """A column of ones, and black and white after normalisation, for every pixel."""
  mean, std = np.asarray(normalize.mean), np.asarray(normalize.std)
  black, white = -mean / std, (1 - mean) / std
  low, high = (np.tile(color.astype(np.float32), (pixels, 1)) for color in (black, white))
  return np.ones((pixels, 1), np.float32), low, high


def _hue_rotation(angle: float) -> Float[np.ndarray, "3 3"]:
  cos, sin = math.cos(angle), math.sin(angle)
  return _YIQ_INVERSE @ np.array([[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]]) @ _YIQ
