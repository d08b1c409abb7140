"""One batch out of positions in the endless order: what a worker does, with no state a result depends on."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int32
from PIL import Image

from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError
from mmjax.data.images import decode
from mmjax.data.sources import Record, Source, siblings
from mmjax.data.tokenizer import Tokenizer
from mmjax.data.transforms import (
  ExampleRng,
  caption_transform,
  check_captions,
  premultiplied,
  train_transform,
)

_REMEMBERED_TEXTS = 100_000
log = logging.getLogger(__name__)


@dataclass
class Prepared:
  """A batch on its way to the consumer: `batch`, or the `error` that stopped it, and the bad records met."""

  batch: dict[str, np.ndarray]
  bad: list[str]
  error: str | None = None


class Batcher:
  """Positions of the endless order to a batch of training examples.

  Decoded pictures and tokenized texts are remembered, which changes the speed and nothing else.
  """

  def __init__(self, config: DataConfig, source: Source, tokenizer: Tokenizer, image_size: int, seed: int):
    self._config, self._source, self._tokenizer, self._seed = config, source, tokenizer, seed
    self._transform = train_transform(config, image_size)
    self._sample_caption = caption_transform(config)
    self._pictures: dict[int, Image.Image] = {}
    self._cache_left = config.cache_mb * 2**20
    self._texts: dict[str, np.ndarray] = {}
    self._image_size = image_size

  def __call__(self, epochs: np.ndarray, indices: np.ndarray) -> Prepared:
    """The examples (epoch, index), row by row. Bad records stop it, or are replaced by the next good one."""
    rows = len(indices)
    batch = self._empty(rows)
    rng, bad = ExampleRng(self._seed), []
    for row, (epoch, index) in enumerate(zip(epochs.tolist(), indices.tolist())):
      for step in range(len(self._source)):
        candidate = (index + step) % len(self._source)
        try:
          self._fill(batch, row, candidate, rng(epoch, candidate))
          break
        except DataError as error:
          bad.append(str(error))
          if self._config.on_bad_record == "error":
            return Prepared({}, bad, str(error))
      else:
        return Prepared({}, bad, f"No record of {len(self._source)} is good; the last one: {bad[-1]}")
    return Prepared(batch, bad)

  def _empty(self, rows: int) -> dict[str, np.ndarray]:
    size, length = self._image_size, self._tokenizer.config.max_length
    batch = {"index": np.empty(rows, np.int32), "concept": np.empty(rows, np.int32)}
    for suffix in ("", "2")[: self._config.views]:
      batch[f"image{suffix}"] = np.empty((rows, size, size, 3), np.float32)
      batch[f"text{suffix}"] = np.empty((rows, length), np.int32)
    return batch

  def _fill(self, batch: dict[str, np.ndarray], row: int, index: int, rng: np.random.Generator) -> None:
    record = self._source[index]
    check_captions(record["captions"], record["id"])
    batch["index"][row] = index
    batch["concept"][row] = record["concept"]
    batch["image"][row] = self._transform(self._picture(index, record), rng)
    batch["text"][row] = self._ids(self._sample_caption(record["captions"], rng))
    if self._config.views == 2:
      batch["image2"][row] = self._second_view(index, record, rng)
      batch["text2"][row] = self._ids(self._sample_caption(record["captions"], rng))

  def _second_view(self, index: int, record: Record, rng: np.random.Generator) -> Float[np.ndarray, "h w 3"]:
    others = siblings(self._source, index)
    if others:
      index = others[int(rng.random() * len(others))]
      record = self._source[index]
    return self._transform(self._picture(index, record), rng)

  def _picture(self, index: int, record: Record) -> Image.Image:
    picture = self._pictures.get(index)
    if picture is None:
      picture = premultiplied(
        decode(record["image"], record=record["id"], max_pixels=self._config.max_pixels)
      )
      size = picture.width * picture.height * 4
      if size <= self._cache_left:
        self._cache_left -= size
        self._pictures[index] = picture
    return picture

  def _ids(self, text: str) -> Int32[np.ndarray, " t"]:
    ids = self._texts.get(text)
    if ids is None:
      ids = self._tokenizer([text])[0]
      if len(self._texts) < _REMEMBERED_TEXTS:
        self._texts[text] = ids
    return ids

  def __getstate__(self) -> dict[str, Any]:
    """Worker processes start with empty memories instead of a copy of this one's."""
    return self.__dict__ | {"_pictures": {}, "_texts": {}, "_cache_left": self._config.cache_mb * 2**20}
