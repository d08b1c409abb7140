"""The pictures of records, decoded when they are asked for, and what their raw pixels alone can do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from mmjax.data import DataError
from mmjax.data.config import DataConfig
from mmjax.data.images import decode, trimmed
from mmjax.evaluate.results import Metrics
from mmjax.evaluate.retrieval import Embedded, image_retrieval
from mmjax.evaluate.zero_shot import normalized

FLOOR_SIZES = (16, 32)


class Pictures(Sequence):
  """Decoded pictures of records, for `Run.encode_image`; errors name the record.

  With data.on_bad_record "skip" an unreadable picture is replaced by a white one and listed in `bad`.
  """

  def __init__(self, records: Sequence[Any], config: DataConfig):
    self._records, self._config = records, config
    self.bad: set[int] = set()

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: Any) -> Any:
    if isinstance(index, slice):
      return [self[place] for place in range(*index.indices(len(self)))]
    record = self._records[index]
    try:
      picture = decode(record["image"], record=record["id"], max_pixels=self._config.max_pixels)
      return trimmed(picture) if self._config.trim else picture
    except DataError:
      if self._config.on_bad_record != "skip":
        raise
      self.bad.add(index)
      return Image.new("RGB", (8, 8), "white")


def on_white(picture: Image.Image, size: int) -> Image.Image:
  """RGB, transparent parts white, resized to a square."""
  picture = picture.convert("RGBA")
  canvas = Image.new("RGBA", picture.size, "white")
  canvas.alpha_composite(picture)
  return canvas.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)


def raw_pixel_floor(
  queries: Sequence[Image.Image], gallery: Sequence[Image.Image], ids: tuple[Sequence[int], Sequence[int]]
) -> tuple[Metrics, str]:
  """Nearest neighbours by raw pixels: the scores, and a sentence on how they were measured.

  Cosine of RGB on white, minus each artist's own mean picture (without that it is less than half as good); of
  FLOOR_SIZES the one that scores best, since a floor should be the best that is this simple.
  """
  scores = {}
  for size in FLOOR_SIZES:
    found, target = (_centred(pictures, size) for pictures in (queries, gallery))
    pair = Embedded(found, np.asarray(ids[0])), Embedded(target, np.asarray(ids[1]))
    scores[size] = image_retrieval(*pair)[0]
  best = max(scores, key=lambda size: scores[size]["image_retrieval_recall@1"])
  return scores[best], f"cosine of raw pixels on white at {best} px, minus each artist's mean picture"


def _centred(pictures: Sequence[Image.Image], size: int) -> Float[np.ndarray, "n pixels"]:
  rows = np.stack([np.asarray(on_white(picture, size), np.float32).ravel() / 255 for picture in pictures])
  return normalized(rows - rows.mean(axis=0, keepdims=True))
