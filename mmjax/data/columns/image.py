"""Column of images, and of the pixels that are relevant to a question."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.data.columns.base import Column, Evaluating, Maker, Making, Shapes
from mmjax.data.errors import DataError
from mmjax.data.images.config import AugmentationConfig
from mmjax.data.lazy_rows import LazyRows

if TYPE_CHECKING:
  from mmjax.data.config import DataConfig

RELEVANCE = "relevance"


@dataclasses.dataclass(frozen=True)
class Image(Column):
  """Image column: decodes the field `image` of a record to normalised float32 [height, width, 3]."""

  sibling: bool = False
  """Use another image of the same thing (emoji of another vendor) if the source has one."""
  relevance: bool = False
  """Add the array `relevance`, float32 [height, width]: 1 for the pixels that are relevant to the question."""
  augmentation: AugmentationConfig | None = None
  """Random changes of the training images of this column. None: those of data.augmentation."""

  @property
  def fields(self) -> tuple[str, ...]:
    return ("image", *(RELEVANCE,) * self.relevance)

  def arrays(self, name: str, making: Making) -> Shapes:
    side = making.image_size
    shapes: Shapes = {name: ((side, side, 3), np.float32)}
    return shapes | ({RELEVANCE: ((side, side), np.float32)} if self.relevance else {})

  def maker(self, name: str, making: Making) -> Maker:
    if making.data.trim and self.relevance:
      raise DataError("--data.trim crops the image, but not the field `relevance`. Use --data.no-trim.")
    from mmjax.data.columns.image_maker import ImageMaker
    from mmjax.data.transforms import train_transform

    data = dataclasses.replace(making.data, augmentation=self.augmentation or making.data.augmentation)
    return ImageMaker(self, name, making, train_transform(data, making.image_size))

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    from mmjax.data.images.decoding import decode, decode_mask

    image = evaluating.image
    assert image is not None

    def shown(wanted: list[int]) -> list[np.ndarray]:
      return [image(records[place]["image"], record=records[place]["id"]) for place in wanted]

    def relevant(wanted: list[int]) -> list[np.ndarray]:
      return [mask(records[place]) for place in wanted]

    def mask(record: Mapping[str, Any]) -> np.ndarray:
      size = decode(record["image"], record=record["id"], max_pixels=image.max_pixels).size
      return image.mask(decode_mask(record[RELEVANCE], size, record=record["id"]))

    rows = {name: LazyRows(places, image.shape, shown)}
    return rows | ({RELEVANCE: LazyRows(places, (image.size, image.size), relevant)} if self.relevance else {})

  def decode(self, record: Mapping[str, Any], data: "DataConfig") -> None:
    from mmjax.data.images.decoding import decode, decode_mask

    size = decode(record["image"], record=record["id"], max_pixels=data.max_pixels).size
    if self.relevance:
      decode_mask(record[RELEVANCE], size, record=record["id"])

  def record(self, item: Any) -> Mapping[str, Any]:
    return {"image": item, "id": "the image"}
