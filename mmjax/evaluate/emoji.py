"""The emoji that are evaluated: an artist never seen, concepts never seen, and classes nobody named in training.

Skin tones are left out everywhere, flags wherever vendors are compared (their colours alone find them).
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.data.config import DataConfig
from mmjax.data.emoji_draw import VENDORS
from mmjax.data.sources import emoji as emoji_source
from mmjax.data.sources.base import IMAGE_TEXT, Reading
from mmjax.data.sources.emoji import is_flag
from mmjax.data.splits import is_held_out
from mmjax.evaluate.examples import Examples
from mmjax.evaluate.images import Images, raw_pixel_floor
from mmjax.evaluate.results import Metrics
from mmjax.evaluate.retrieval import Embedded

if TYPE_CHECKING:
  from mmjax.run import Run

ARTISTS = {"noto": "Noto", "twemoji": "Twemoji", "openmoji": "OpenMoji"}


class EmojiRecords:
  """Every base emoji but flags, by every artist, in the same order; and the flags of one artist.

  Attributes:
    records: by artist.
    flags: of the first artist.
    seen, unseen: the artists that were trained on, and the others.
  """

  def __init__(self, data: DataConfig):
    source: Any = data.source
    self.records = base_records(data.dir, source.limit, source.groups)
    self.flags = [r for r in _read(data.dir, source.limit, source.groups) if r["vendor"] == VENDORS[0] and is_flag(r)]
    self.seen = tuple(vendor for vendor in VENDORS if vendor in source.vendors)
    self.unseen = tuple(vendor for vendor in VENDORS if vendor not in source.vendors)

  @property
  def first(self) -> list[Any]:
    """The records of any one artist; but for the image they are alike."""
    return self.records[VENDORS[0]]

  @property
  def tested(self) -> tuple[str, ...]:
    """The artists whose images are queries: those that were not trained on, or the last one."""
    return self.unseen or VENDORS[-1:]

  def targets(self, vendor: str) -> tuple[str, ...]:
    """The artists among whose images those of `vendor` are looked for."""
    return tuple(other for other in self.seen if other != vendor)

  def title(self, vendor: str) -> str:
    """The artist's name, with whether it was trained on."""
    return ARTISTS[vendor] + (" (unseen)" if vendor in self.unseen else " (seen)")

  @functools.cached_property
  def concepts(self) -> np.ndarray:
    return np.array([record["concept"] for record in self.first])

  @functools.cached_property
  def held_out(self) -> np.ndarray:
    return np.array([is_held_out(record["concept_group"]) for record in self.first], bool)


class Emoji(EmojiRecords):
  """The same, each image and name embedded once."""

  def __init__(self, run: Run):
    data = run.experiment.data
    super().__init__(data)
    self.images = {
      vendor: Embedded(run.encode_image(Images(records, data)), self.concepts)
      for vendor, records in self.records.items()
    }
    self.captions = [record["captions"]["name"][0] for record in self.first]
    rows = run.encode_text([*self.captions, *(record["captions"]["name"][0] for record in self.flags)])
    self.texts, self.flag_rows = Embedded(rows[: len(self.first)], self.concepts), rows[len(self.first) :]


def base_records(directory: str, limit: int | None, groups: tuple[str, ...] = ()) -> dict[str, list[Any]]:
  """The base emoji without flags that every artist drew, in the same order; 1,644 of all groups."""
  records = [record for record in _read(directory, limit, groups) if not is_flag(record)]
  drawn = Counter(record["concept"] for record in records)
  return {
    vendor: [r for r in records if r["vendor"] == vendor and drawn[r["concept"]] == len(VENDORS)] for vendor in VENDORS
  }


@functools.lru_cache(maxsize=1)
def _read(directory: str, limit: int | None, groups: tuple[str, ...]) -> list[Any]:
  """Read once, since training evaluates often."""
  source = emoji_source.Emoji(vendors=VENDORS, languages=(), skin_tones=False, groups=groups, limit=limit)
  return source.open("all", Reading(directory)).records


def shown_vendor(data: DataConfig) -> str:
  """An artist that was not trained on, or the last one."""
  source: Any = data.source
  return (*(v for v in VENDORS if v not in source.vendors), VENDORS[-1])[0]


def examples(run: Run) -> Examples:
  """The images and English names of one artist: one that was not trained on, if there is one."""
  data = run.experiment.data
  source: Any = data.source
  vendor = shown_vendor(data)
  title = ARTISTS[vendor] + (" (seen)" if vendor in source.vendors else " (unseen)")
  return Examples(f"emoji_{vendor}", title, base_records(data.dir, source.limit, source.groups)[vendor], IMAGE_TEXT)


def vendor_floor(data: DataConfig, query: str, target: str) -> tuple[Metrics, str]:
  """The raw-pixel floor between two artists; measured once for a set of data."""
  source: Any = data.source
  return _floor(data.dir, source.limit, source.groups, data.trim, query, target)


@functools.lru_cache(maxsize=4)
def _floor(
  directory: str, limit: int | None, groups: tuple[str, ...], trim: bool, query: str, target: str
) -> tuple[Metrics, str]:
  records = base_records(directory, limit, groups)
  pictures = {vendor: list(Images(records[vendor], DataConfig(trim=trim))) for vendor in (query, target)}
  ids = [record["concept"] for record in records[query]], [record["concept"] for record in records[target]]
  scores, how = raw_pixel_floor(pictures[query], pictures[target], ids)
  return scores, f"{how}{', margins trimmed' if trim else ''}"
