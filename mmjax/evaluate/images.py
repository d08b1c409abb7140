"""The images of records, decoded when they are asked for, and what their raw pixels alone can do."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from mmjax.data import DataError
from mmjax.data.config import DataConfig
from mmjax.data.images.decoding import decode, trimmed
from mmjax.evaluate.results import Metrics
from mmjax.evaluate.retrieval import Embedded, image_retrieval
from mmjax.evaluate.zero_shot import normalized

FLOOR_SIZES = (16, 32)


class Images(Sequence):
  """Decoded images of records, for `Run.encode_image`; errors name the record.

  With data.on_bad_record "skip" an unreadable image is replaced by a white one and listed in `bad`.
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

  Cosine of RGB on white, minus each artist's own mean image or minus white; of these and of FLOOR_SIZES the one
  that scores best, since a floor should be the best that is this simple.
  """
  found: dict[str, Metrics] = {}
  for size in FLOOR_SIZES:
    rows = [_pixels(pictures, size) for pictures in (queries, gallery)]
    for name, centred in (
      ("each artist's mean image", [row - row.mean(axis=0, keepdims=True) for row in rows]),
      ("white", [row - 1 for row in rows]),
    ):
      pair = (Embedded(normalized(row), np.asarray(i)) for row, i in zip(centred, ids, strict=True))
      found[f"cosine of raw pixels on white at {size} px, minus {name}"] = image_retrieval(*pair)[0]
  best = max(found, key=lambda how: found[how]["image_retrieval_recall@1"])
  return found[best], best


def _pixels(pictures: Sequence[Image.Image], size: int) -> Float[np.ndarray, "n pixels"]:
  return np.stack([np.asarray(on_white(picture, size), np.float32).ravel() / 255 for picture in pictures])
