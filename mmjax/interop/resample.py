"""Resampling of learned position embeddings to another image size or text length."""

import math
from typing import Literal

import jax
import numpy as np

from mmjax.interop.errors import InteropError

Resampling = Literal["antialiased", "bicubic", "bilinear"]
"""Filter of image positions.

* "antialiased": bicubic with antialiasing, as open_clip does it.
* "bicubic": PyTorch's bicubic filter without antialiasing, as transformers does it (interpolate_pos_encoding).
* "bilinear": bilinear with antialiasing, as transformers does it for SigLIP 2.
"""


def resample_positions(
  positions: np.ndarray, count: int, *, text: bool, name: str, how: Resampling = "antialiased"
) -> np.ndarray:
  """Resample position embeddings to another number of positions.

  Images: the square grid is resized. A row before the grid (for a class token, or for the mean token of a ResNet) is
  kept unchanged.
  Texts: a shorter length keeps the first rows, so that a short text keeps its embedding. A longer length is
  interpolated linearly.

  Args:
    positions: embeddings [n, width].
    count: new number of positions.
    text: True for texts, False for images.
    name: path of the parameter, for error messages.
    how: filter, for images.
  Returns: embeddings [count, width].
  Raises: InteropError: the rows form no square grid, or only one of the two sizes has a row before the grid.
  """
  have = positions.shape[0]
  if text:
    if count <= have:
      return positions[:count]
    return _resize(positions, (count,), "linear", antialias=False)
  first, new_first = _first_rows(have, name), _first_rows(count, name)
  if first != new_first:
    raise InteropError(
      f"{name}: {have} positions cannot be made into {count}: only one of them has a row for a class token"
    )
  old, new = math.isqrt(have - first), math.isqrt(count - first)
  grid = positions[first:].reshape(old, old, -1)
  if how == "bicubic":
    weights = _torch_bicubic(old, new)
    resized = np.einsum("yi,xj,ijd->yxd", weights, weights, np.asarray(grid, np.float64)).astype(np.float32)
  else:
    resized = _resize(grid, (new, new), "cubic" if how == "antialiased" else "linear", antialias=True)
  return np.concatenate([positions[:first], resized.reshape(new * new, -1)])


def _torch_bicubic(old: int, new: int) -> np.ndarray:
  """Weights [new, old] of PyTorch's bicubic interpolation: a kernel with a = -0.75, edges repeated, no antialiasing."""
  centres = (np.arange(new) + 0.5) * old / new - 0.5
  weights = np.zeros((new, old))
  for offset in range(-1, 3):
    places = np.floor(centres).astype(int) + offset
    x = np.abs(centres - places)
    near, far = 1.25 * x**3 - 2.25 * x**2 + 1, -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
    np.add.at(weights, (np.arange(new), places.clip(0, old - 1)), np.where(x <= 1, near, np.where(x < 2, far, 0)))
  return weights


def _first_rows(rows: int, name: str) -> int:
  for first in (0, 1):
    if math.isqrt(rows - first) ** 2 == rows - first:
      return first
  raise InteropError(f"{name}: {rows} positions form no square grid, with or without a row for a class token")


def _resize(x: np.ndarray, sides: tuple[int, ...], method: str, *, antialias: bool) -> np.ndarray:
  shape = (*sides, x.shape[-1])
  return np.asarray(jax.image.resize(np.asarray(x, np.float32), shape, method, antialias=antialias))
