"""Resampling of learned position embeddings to another image size or text length."""

import math

import jax
import numpy as np

from mmjax.interop.errors import InteropError


def resample_positions(positions: np.ndarray, count: int, *, text: bool, name: str) -> np.ndarray:
  """Resample position embeddings to another number of positions.

  Images: the square grid is resized bicubically with antialiasing. A row before the grid (for a class token, or for the
  mean token of a ResNet) is kept unchanged. This is what open_clip does.
  Texts: a shorter length keeps the first rows, so that a short text keeps its embedding. A longer length is
  interpolated linearly.

  Args:
    positions: embeddings [n, width].
    count: new number of positions.
    text: True for texts, False for images.
    name: path of the parameter, for error messages.
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
  return np.concatenate([positions[:first], _resize(grid, (new, new), "cubic", antialias=True).reshape(new * new, -1)])


def _first_rows(rows: int, name: str) -> int:
  for first in (0, 1):
    if math.isqrt(rows - first) ** 2 == rows - first:
      return first
  raise InteropError(f"{name}: {rows} positions form no square grid, with or without a row for a class token")


def _resize(x: np.ndarray, sides: tuple[int, ...], method: str, *, antialias: bool) -> np.ndarray:
  shape = (*sides, x.shape[-1])
  return np.asarray(jax.image.resize(np.asarray(x, np.float32), shape, method, antialias=antialias))
