"""Column of the codes that an image tokenizer gave to the patches of an image."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.columns.base import Column, Maker, Making, Shapes
from mmjax.data.errors import DataError

_MOVES = {"crop_scale": (1, 1), "rotation": 0, "shear": 0, "flip": 0}
"""Augmentation that keeps every pixel in its place."""


@dataclasses.dataclass(frozen=True)
class PatchCodes(Column):
  """Codes of the patches of an image by any image tokenizer, int32 [patches], row by row.

  They are made before training, from the image as data reads it, so the image must not be moved by augmentation.
  """

  field: str = "codes"
  """Field of the record: a list of codes."""
  patches: int = 196
  """Number of codes per image, that of the patches of the model."""
  num_codes: int = 8192
  """Size of the codebook of the tokenizer. Codes are 0 to num_codes - 1."""
  image: str = "image"
  """Name of the column of the image that the codes describe."""

  def arrays(self, name: str, making: Making) -> Shapes:
    return {name: ((self.patches,), np.int32)}

  def maker(self, name: str, making: Making) -> Maker:
    own = getattr(making.data.columns.get(self.image), "augmentation", None)
    augmentation, setting = (own, f"columns.{self.image}.") if own else (making.data.augmentation, "")
    moved = [field for field, still in _MOVES.items() if getattr(augmentation, field) != still]
    if moved or making.data.trim:
      field = f"{setting}augmentation.{moved[0]}" if moved else "trim"
      raise DataError(
        f"The column {name!r} has codes of whole images, and data.{field} "
        "moves their pixels. Set crop_scale 1 1, rotation 0, shear 0, flip 0 and --data.no-trim."
      )
    return super().maker(name, making)

  def row(self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any) -> np.ndarray:
    codes = np.asarray(record[self.field])
    where = f"{record['id']}: the field {self.field!r}"
    if codes.shape != (self.patches,) or codes.dtype.kind not in "iu":
      raise DataError(
        f"{where} must be a list of {self.patches} integers, one per patch, not {codes.dtype} {list(codes.shape)}. "
        "Use the tokenizer at the model's grid of patches, or set `patches`."
      )
    if codes.min() < 0 or codes.max() >= self.num_codes:
      raise DataError(
        f"{where} has codes from {codes.min()} to {codes.max()}, and num_codes is {self.num_codes}: codes are 0 to "
        f"{self.num_codes - 1}. Set `num_codes` to the size of the tokenizer's codebook."
      )
    return codes.astype(np.int32)
