"""Maker of training rows of images."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image

from mmjax.data.columns.base import Example, Maker, Making
from mmjax.data.columns.image import RELEVANCE, Image
from mmjax.data.images.decoding import JPEG, decode, decode_mask, trimmed
from mmjax.data.transforms import TrainImage, premultiplied


@dataclasses.dataclass(frozen=True)
class ImageMaker(Maker):
  """Maker of the training rows of an image column: decoded, augmented and normalised."""

  column: Image
  name: str
  making: Making
  transform: TrainImage

  def begin(self, rows: int) -> dict[str, np.ndarray]:
    shapes = self.column.arrays(self.name, self.making)
    return {name: np.empty((rows, *shape), dtype) for name, (shape, dtype) in shapes.items()}

  def fill(self, buffer: dict[str, np.ndarray], row: int, example: Example) -> None:
    index, record = example.index, example.record
    if self.column.sibling:
      others = example.siblings()
      if others:
        index = others[int(example.rng.random() * len(others))]
        record = example.read(index)
    out = buffer[self.name][row]
    if self.column.relevance:
      picture = self._picture(index, record)
      mask = self._mask(index, record, picture), buffer[RELEVANCE][row]
      self.transform(picture, example.rng, out, mask)
    else:
      self._show(index, record, example.rng, out)

  def end(self, buffer: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return buffer

  def _show(self, index: int, record: Mapping[str, Any], rng: np.random.Generator, out: np.ndarray) -> None:
    """Write an augmented image to `out`. A JPEG is decoded at the size that its crop needs, unless it is trimmed."""
    photo = None
    if record["image"].startswith(JPEG) and not self.making.data.trim:
      from mmjax.data.images.photo import open_photo

      photo = open_photo(record["image"], record=record["id"], max_pixels=self.making.data.max_pixels)
    if photo is None:
      self.transform(self._picture(index, record), rng, out)
    else:
      self.transform.photo(photo, rng, out, functools.partial(self._pixels, record.get("picture", index)))

  def _pixels(self, number: int, photo: Any, shrink: int) -> np.ndarray:
    """Return the pixels of images.photo.decoded. They are cached by size, so the order of crops does not matter."""
    from mmjax.data.images.photo import decoded

    def make() -> tuple[np.ndarray, int]:
      pixels = decoded(photo, shrink)
      return pixels, pixels.nbytes

    return self.making.memory.image((number, f"photo/{shrink}"), make)

  def _picture(self, index: int, record: Mapping[str, Any]) -> PIL.Image.Image:
    def make() -> tuple[PIL.Image.Image, int]:
      data = self.making.data
      picture = decode(record["image"], record=record["id"], max_pixels=data.max_pixels)
      picture = premultiplied(trimmed(picture) if data.trim else picture)
      return picture, picture.width * picture.height * 4

    return self.making.memory.image((record.get("picture", index), "image"), make)

  def _mask(self, index: int, record: Mapping[str, Any], picture: PIL.Image.Image) -> PIL.Image.Image:
    def make() -> tuple[PIL.Image.Image, int]:
      mask = decode_mask(record[RELEVANCE], picture.size, record=record["id"])
      return mask, mask.width * mask.height

    return self.making.memory.image((index, RELEVANCE), make)
