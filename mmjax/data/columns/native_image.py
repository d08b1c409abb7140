"""Column of images at their own shape, as rows of patches (NaFlex)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from mmjax.data.columns.base import Column, Evaluating, Example, Maker, Making, Shapes
from mmjax.data.errors import DataError
from mmjax.data.images.config import AugmentationConfig
from mmjax.data.images.native import row_width, to_row
from mmjax.data.lazy_rows import LazyRows

if TYPE_CHECKING:
  from mmjax.data.config import DataConfig
  from mmjax.data.transforms import TrainImage


@dataclasses.dataclass(frozen=True)
class NativeImage(Column):
  """Image column that keeps the shape of each image, for a tower `NaFlexConfig` (Tschannen et al. 2025, SigLIP 2).

  An image is scaled to at most `length` patches and cut into a row float32 [length, patch_size * patch_size * 3 + 2] of
  mmjax.data.images.native. In training, the length of a batch is drawn from `lengths`. It depends on the seed and the
  step alone, and the training step is compiled once for each length. Evaluation uses the longest.

  data.square has no effect on this column, and data.interpolation is the filter of evaluation, as for `Image`.
  """

  patch_size: int = 16
  """Side of a patch in pixels."""
  lengths: tuple[int, ...] = (256,)
  """Lengths of rows, in patches. A length that is listed twice is drawn twice as often."""
  augmentation: AugmentationConfig | None = None
  """Random changes of the training images of this column. None: those of data.augmentation. crop_ratio is relative to
  the shape of the image."""

  def __post_init__(self) -> None:
    if self.patch_size < 1 or not self.lengths or min(self.lengths) < 1:
      raise ValueError(f"patch_size={self.patch_size} and lengths={self.lengths} must be at least 1, and not empty")

  @property
  def fields(self) -> tuple[str, ...]:
    return ("image",)

  @property
  def native_patches(self) -> tuple[int, int]:
    return self.patch_size, max(self.lengths)

  def arrays(self, name: str, making: Making) -> Shapes:
    return {name: ((max(self.lengths), row_width(self.patch_size)), np.float32)}

  def maker(self, name: str, making: Making) -> Maker:
    from mmjax.data.transforms import train_transform

    data = dataclasses.replace(making.data, augmentation=self.augmentation or making.data.augmentation)
    return _NativeMaker(self, name, making, train_transform(data, making.image_size))

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    image = evaluating.image
    shape = (max(self.lengths), row_width(self.patch_size))
    if image is None or image.shape != shape:
      has = "none" if image is None else f"one of the shape {list(image.shape)}"
      raise DataError(
        f"the column {name!r} (NativeImage) needs a transform to rows of the shape {list(shape)}, and the run has "
        f"{has}: give all columns of this type the same patch_size and longest length, and name one of them 'image'"
      )

    def rows(wanted: list[int]) -> list[np.ndarray]:
      return [image(records[place]["image"], record=records[place]["id"]) for place in wanted]

    return {name: LazyRows(places, shape, rows)}

  def decode(self, record: Mapping[str, Any], data: "DataConfig") -> None:
    from mmjax.data.images.decoding import decode

    decode(record["image"], record=record["id"], max_pixels=data.max_pixels)

  def record(self, item: Any) -> Mapping[str, Any]:
    return {"image": item, "id": "the image"}


@dataclasses.dataclass(frozen=True)
class _NativeMaker(Maker):
  """Maker of the training rows: decoded, augmented and normalised at the shape of the image."""

  column: NativeImage
  name: str
  making: Making
  transform: "TrainImage"

  def begin_step(self, rows: int, step: int) -> np.ndarray:
    lengths = self.column.lengths
    # A key of its own, so that columns and the order of the data share no random numbers with it.
    drawn = np.random.default_rng((self.making.seed & 0xFFFFFFFF, step, 0x4E46)).integers(len(lengths))
    return np.empty((rows, lengths[drawn], row_width(self.column.patch_size)), np.float32)

  def fill(self, buffer: np.ndarray, row: int, example: Example) -> None:
    side, length = self.column.patch_size, buffer.shape[1]
    pixels = self.transform.native(self._picture(example), example.rng, side, length)
    to_row(pixels, side, length, buffer[row])

  def end(self, buffer: np.ndarray) -> dict[str, np.ndarray]:
    return {self.name: buffer}

  def _picture(self, example: Example) -> PIL.Image.Image:
    from mmjax.data.images.decoding import decode, trimmed
    from mmjax.data.transforms import premultiplied

    record, data = example.record, self.making.data

    def make() -> tuple[PIL.Image.Image, int]:
      picture = decode(record["image"], record=record["id"], max_pixels=data.max_pixels)
      picture = premultiplied(trimmed(picture) if data.trim else picture)
      return picture, picture.width * picture.height * 4

    return self.making.memory.image((record.get("picture", example.index), "image"), make)
