"""Images at their own shape, as rows of patches (NaFlex, Tschannen et al. 2025, section 2.4.2).

A row is float32 [length, patch_size * patch_size * 3 + 2]: the pixels of each patch, line by line, and the row and the
column of the patch in the image. Patches that fill up a row have only zeros as pixels, and PADDED as row and column.
"""

import math

import numpy as np
from jaxtyping import Float

PADDED = -1.0
"""Row and column of patches that are no part of the image."""
_LEAST, _MOST, _CLOSE = 1e-6, 100.0, 1e-5  # their search for the scale


def row_width(patch_size: int) -> int:
  """Number of values of a patch in a row."""
  return patch_size**2 * 3 + 2


def native_grid(width: float, height: float, patch_size: int, most: int) -> tuple[int, int]:
  """Number of patches along the sides of an image, after it is scaled to at most `most` patches.

  Sides are rounded up to whole patches, so the image is stretched by less than a patch. The scale is found by bisection
  as transformers does it, because rounding decides the result.

  Args:
    width: width of the image in pixels.
    height: height of the image in pixels.
    patch_size: side of a patch in pixels.
    most: largest number of patches.
  Returns: (rows, columns), each at least 1.
  """

  def grid(scale: float) -> tuple[int, int]:
    rows, columns = (max(1, math.ceil(side * scale / patch_size)) for side in (height, width))
    return rows, columns

  low, high = _LEAST, _MOST
  while high - low >= _CLOSE:
    scale = (low + high) / 2
    low, high = (scale, high) if math.prod(grid(scale)) <= most else (low, scale)
  return grid(low)


def to_row(
  pixels: Float[np.ndarray, "height width 3"],
  patch_size: int,
  length: int,
  out: Float[np.ndarray, "length values"] | None = None,
) -> Float[np.ndarray, "length values"]:
  """Make the row of an image whose sides are whole patches.

  Args:
    pixels: normalised pixels.
    patch_size: side of a patch in pixels.
    length: number of patches of the row.
    out: array for the row. None: a new array.
  Raises: ValueError: the sides are no whole patches, or the image has more than `length` patches.
  """
  height, width = pixels.shape[:2]
  rows, columns = height // patch_size, width // patch_size
  if height % patch_size or width % patch_size or rows * columns > length:
    raise ValueError(f"{width} x {height} pixels are not at most {length} patches of {patch_size} x {patch_size}")
  row = np.empty((length, row_width(patch_size)), np.float32) if out is None else out
  count = rows * columns
  cut = pixels.reshape(rows, patch_size, columns, patch_size, 3).transpose(0, 2, 1, 3, 4)
  row[:count, :-2] = cut.reshape(count, -1)
  row[:count, -2], row[:count, -1] = np.divmod(np.arange(count), columns)
  row[count:, :-2], row[count:, -2:] = 0.0, PADDED
  return row


def from_row(row: Float[np.ndarray, "length values"]) -> Float[np.ndarray, "height width 3"]:
  """The pixels of a row, the inverse of `to_row`."""
  side = math.isqrt((row.shape[1] - 2) // 3)
  real = row[row[:, -2] >= 0]
  rows, columns = (int(last) + 1 for last in real[-1, -2:])
  cut = real[:, :-2].reshape(rows, columns, side, side, 3).transpose(0, 2, 1, 3, 4)
  return cut.reshape(rows * side, columns * side, 3)
