"""One batch out of positions in the endless order: what a worker does, with no state a result depends on."""

import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32
from PIL import Image

from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError
from mmjax.data.features import check_settings, config_features, source_features
from mmjax.data.images import JPEG, decode, decode_mask, trimmed
from mmjax.data.sources import Record, Source, concept_number, siblings
from mmjax.data.tokenizer import Tokenizer
from mmjax.data.transforms import ExampleRng, caption_transform, premultiplied, train_transform
from mmjax.data.words import check_record, columns, pair, text_fields

_REMEMBERED_TEXTS = 100_000
_MAX_BAD = 1000  # one after the other, and the data is not what it should be
log = logging.getLogger(__name__)


class Prepared(NamedTuple):
  """A batch on its way to the consumer: `batch`, or the `error` that stopped it, and the bad records met."""

  batch: dict[str, np.ndarray]
  bad: list[str]
  error: str | None = None


def row_shapes(
  config: DataConfig, image_size: int, features: Sequence[str] | None = None
) -> dict[str, tuple[tuple[int, ...], type]]:
  """Shape and dtype of one row of everything in a batch, by name.

  Args:
    config: views and text lengths; and the features, where they are not given.
    image_size: height and width of a picture.
    features: what the source fills, see mmjax.data.features.
  """
  words = (config.tokenizer.max_length,)
  known: dict[str, tuple[tuple[int, ...], type]] = {
    "image": ((image_size, image_size, 3), np.float32),
    "text": (words, np.int32),
    "relevance": ((image_size, image_size), np.float32),
    "segment": (words, np.int32),
    "next": ((), np.int32),
    "answer": ((), np.int32),
    "answer_text": ((config.tokenizer.answer_length,), np.int32),
  }
  always = ("index", "concept", *["group"] * (config.source == "emoji"))
  shapes: dict[str, tuple[tuple[int, ...], type]] = dict.fromkeys(always, ((), np.int32))
  features = config_features(config) if features is None else features
  for suffix in ("", "2")[: config.views]:
    shapes |= {f"{name}{suffix}": known[name] for name in features}
  return shapes


class Batcher:
  """Positions of the endless order to a batch of training examples.

  Decoded pictures and tokenized texts are remembered, which changes the speed and nothing else.
  """

  def __init__(self, config: DataConfig, source: Source, tokenizer: Tokenizer, image_size: int, seed: int):
    self._config, self._source, self._tokenizer, self._seed = config, source, tokenizer, seed
    self._features = source_features(source)
    check_settings(config, self._features)
    self._transform = train_transform(config, image_size)
    self._sample_caption = caption_transform(config)
    self._pictures: dict[tuple[int, str], Any] = {}
    self._cache_left = config.cache_mb * 2**20
    self._texts: dict[str, np.ndarray] = {}
    self._checked: set[int] = set()
    self._image_size = image_size

  def __call__(self, epochs: np.ndarray, indices: np.ndarray) -> Prepared:
    """The examples (epoch, index), row by row. Bad records stop it, or are replaced by the next good one."""
    rows = len(indices)
    batch = self._empty(rows)
    texts = {name: [""] * rows for name in text_fields(self._features, self._config.views)}
    rng, bad = ExampleRng(self._seed), []
    for row, (epoch, index) in enumerate(zip(epochs.tolist(), indices.tolist())):
      for step in range(min(len(self._source), _MAX_BAD)):
        candidate = (index + step) % len(self._source)
        try:
          self._fill(batch, texts, row, candidate, rng(epoch, candidate))
          break
        except DataError as error:
          bad.append(str(error))
          if self._config.on_bad_record == "error":
            return Prepared({}, bad, str(error))
      else:
        return Prepared({}, bad, f"No record of {step + 1} in a row is good; the last one: {bad[-1]}")
    return Prepared(batch | columns(texts, self._tokenizer, self._ids), bad)

  def _empty(self, rows: int) -> dict[str, np.ndarray]:
    """What is filled row by row; `columns` makes the rest."""
    entries = row_shapes(self._config, self._image_size, self._features).items()
    filled = ("index", "concept", "group", "image", "image2", "relevance", "next")
    return {name: np.empty((rows, *shape), dtype) for name, (shape, dtype) in entries if name in filled}

  def _fill(
    self,
    batch: dict[str, np.ndarray],
    texts: dict[str, list[str]],
    row: int,
    index: int,
    rng: np.random.Generator,
  ) -> None:
    record = self._source[index]
    if index not in self._checked:
      check_record(record, self._features)
      if len(self._checked) < _REMEMBERED_TEXTS:
        self._checked.add(index)
    batch["index"][row] = index
    batch["concept"][row] = record["concept"]
    if "group" in batch:
      batch["group"][row] = concept_number(record.get("group", ""))
    if "relevance" in self._features:
      picture = self._picture(index, record)
      mask = self._mask(index, record, picture), batch["relevance"][row]
      self._transform(picture, rng, batch["image"][row], mask)
    elif "image" in self._features:
      self._show(index, record, rng, batch["image"][row])
    if "next" in self._features:
      is_next, point = rng.random(2).tolist()
      batch["next"][row] = is_next < 0.5
      texts["first"][row], texts["second"][row] = pair(record, is_next < 0.5, point)
    elif "answer" in self._features:
      texts["text"][row], texts["answer"][row] = record["question"], record["answer"]
    else:
      texts["text"][row] = self._sample_caption(record["captions"], rng)
    if self._config.views == 2:
      self._show(*self._other(index, record, rng), rng, batch["image2"][row])
      texts["text2"][row] = self._sample_caption(record["captions"], rng)

  def _other(self, index: int, record: Record, rng: np.random.Generator) -> tuple[int, Record]:
    """A sibling, where there is one."""
    others = siblings(self._source, index)
    if not others:
      return index, record
    index = others[int(rng.random() * len(others))]
    return index, self._source[index]

  def _show(self, index: int, record: Record, rng: np.random.Generator, out: np.ndarray) -> None:
    """A record's picture, augmented; a JPEG is decoded no larger than its crop needs, unless margins are cut off it."""
    photo = None
    if record["image"].startswith(JPEG) and not self._config.trim:
      photo = self._photo(record)
    if photo is None:
      self._transform(self._picture(index, record), rng, out)
    else:
      self._transform.photo(photo, rng, out, functools.partial(self._pixels, record.get("picture", index)))

  def _photo(self, record: Record) -> Any:
    from mmjax.data.photo import open_photo

    return open_photo(record["image"], record=record["id"], max_pixels=self._config.max_pixels)

  def _pixels(self, number: int, photo: Any, shrink: int) -> np.ndarray:
    """What mmjax.data.photo.decoded gives, remembered by its size: which crop asked first changes nothing."""
    from mmjax.data.photo import decoded

    place = number, f"photo/{shrink}"
    pixels = self._pictures.get(place)
    if pixels is None:
      pixels = decoded(photo, shrink)
      self._remember(place, pixels, pixels.nbytes)
    return pixels

  def _picture(self, index: int, record: Record) -> Image.Image:
    place = (record.get("picture", index), "image")
    picture = self._pictures.get(place)
    if picture is None:
      picture = decode(record["image"], record=record["id"], max_pixels=self._config.max_pixels)
      picture = premultiplied(trimmed(picture) if self._config.trim else picture)
      self._remember(place, picture, picture.width * picture.height * 4)
    return picture

  def _mask(self, index: int, record: Record, picture: Image.Image) -> Image.Image:
    mask = self._pictures.get((index, "relevance"))
    if mask is None:
      mask = decode_mask(record["relevance"], picture.size, record=record["id"])
      self._remember((index, "relevance"), mask, mask.width * mask.height)
    return mask

  def _remember(self, place: tuple[int, str], picture: Any, size: int) -> None:
    if size <= self._cache_left:
      self._cache_left -= size
      self._pictures[place] = picture

  def _ids(self, texts: Sequence[str]) -> Int32[np.ndarray, "n t"]:
    known = self._texts
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    if len(known) + len(missing) > _REMEMBERED_TEXTS:
      return self._tokenizer(texts)
    known.update(zip(missing, self._tokenizer(missing)))
    return np.stack([known[text] for text in texts])

  def __getstate__(self) -> dict[str, Any]:
    """Worker processes start with empty memories instead of a copy of this one's."""
    return self.__dict__ | {"_pictures": {}, "_texts": {}, "_cache_left": self._config.cache_mb * 2**20}
