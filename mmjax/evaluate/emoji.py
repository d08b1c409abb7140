"""The emoji suite: an artist never seen, concepts never seen, and classes nobody named in training.

Skin tones are left out everywhere, flags wherever vendors are compared (their colours alone find them).
"""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from mmjax.data.config import DataConfig
from mmjax.data.emoji_draw import VENDORS
from mmjax.data.features import IMAGE_TEXT
from mmjax.data.sources import emoji as emoji_source
from mmjax.data.sources.base import Reading
from mmjax.data.sources.emoji import is_flag
from mmjax.data.splits import is_held_out
from mmjax.evaluate.examples import Examples
from mmjax.evaluate.pictures import Pictures, raw_pixel_floor
from mmjax.evaluate.results import Metrics, Result
from mmjax.evaluate.retrieval import Embedded, image_retrieval, image_text_retrieval
from mmjax.evaluate.task import Task
from mmjax.evaluate.zero_shot import class_embeddings, mean_embeddings, zero_shot

ARTISTS = {"noto": "Noto", "twemoji": "Twemoji", "openmoji": "OpenMoji"}
_PUBLISHED = "0.201 R@1 in the published measurement, with another drawing of Noto"


class Emoji:
  """Every base emoji but flags, by every artist, in the same order, each embedded once."""

  def __init__(self, run: Any):
    data = run.experiment.data
    source = data.source
    self.records = base_records(data.dir, source.limit, source.groups)
    self.images = {
      vendor: Embedded(run.encode_image(Pictures(records, data)), self.concepts)
      for vendor, records in self.records.items()
    }
    self.flags = [r for r in _read(data.dir, source.limit, source.groups) if r["vendor"] == VENDORS[0] and is_flag(r)]
    names = [record["captions"]["name"][0] for record in [*self.first, *self.flags]]
    rows = run.encode_text(names)
    self.texts, self.flag_rows = Embedded(rows[: len(self.first)], self.concepts), rows[len(self.first) :]
    self.seen = tuple(vendor for vendor in VENDORS if vendor in source.vendors)
    self.unseen = tuple(vendor for vendor in VENDORS if vendor not in source.vendors)

  @property
  def first(self) -> list[Any]:
    """The records of any one artist; but for the picture they are alike."""
    return self.records[VENDORS[0]]

  @functools.cached_property
  def concepts(self) -> np.ndarray:
    return np.array([record["concept"] for record in self.first])

  @functools.cached_property
  def held_out(self) -> np.ndarray:
    return np.array([is_held_out(record["concept_group"]) for record in self.first], bool)


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


def run(run: Any) -> list[Result]:
  """All emoji tasks of a Run."""
  emoji, task = Emoji(run), Task(run)
  settings = run.experiment.evaluation
  return [
    *vendor_hold_out(emoji, task, run.experiment.data),
    *concept_hold_out(emoji, task),
    *zero_shot_classes(emoji, task, run.encode_text, settings.templates, settings.min_class_size),
  ]


def examples(run: Any) -> Examples:
  """The pictures and English names of one artist: one that was not trained on, if there is one."""
  data, source = run.experiment.data, run.experiment.data.source
  vendor = (*(v for v in VENDORS if v not in source.vendors), VENDORS[-1])[0]
  title = ARTISTS[vendor] + (" (seen)" if vendor in source.vendors else " (unseen)")
  return Examples(f"emoji_{vendor}", title, base_records(data.dir, source.limit, source.groups)[vendor], IMAGE_TEXT)


def vendor_hold_out(emoji: Emoji, task: Task, data: DataConfig) -> Iterator[Result]:
  """Pictures by an artist that was not trained on: to the artists that were, and from and to text."""
  for vendor in emoji.unseen or VENDORS[-1:]:
    name = ARTISTS[vendor] + (" (unseen)" if vendor in emoji.unseen else " (seen)")
    images = emoji.images[vendor]
    for target in (other for other in emoji.seen if other != vendor):
      floor, how = vendor_floor(data, vendor, target)
      more = {"floor": floor, "floor_is": f"{how} ({_PUBLISHED})" if target == "twemoji" else how}
      found = image_retrieval(images, emoji.images[target])
      gallery = len(emoji.images[target])
      yield task.result(
        f"emoji_{vendor}_to_{target}", "image_retrieval", f"{name} to {ARTISTS[target]}", images, found,
        gallery=gallery, **more,
      )  # fmt: skip
    found = image_text_retrieval(images, emoji.texts)
    title = f"{name} and names"
    yield task.result(f"emoji_{vendor}", "zeroshot_retrieval", title, images, found, gallery=len(images))
    found = image_text_retrieval(images.shuffled(), emoji.texts)
    yield task.result(
      f"emoji_{vendor}_shuffled", "zeroshot_retrieval", f"Control: {title} shuffled", images, found,
      gallery=len(images), control=True,
    )  # fmt: skip


def concept_hold_out(emoji: Emoji, task: Task) -> Iterator[Result]:
  """Pictures and names of concepts that no artist showed in training, one artist at a time."""
  texts = emoji.texts[emoji.held_out]
  for vendor in VENDORS if len(texts) else ():
    images = emoji.images[vendor][emoji.held_out]
    title = f"Held-out concepts, {ARTISTS[vendor]}"
    found = image_text_retrieval(images, texts)
    yield task.result(f"emoji_heldout_{vendor}", "zeroshot_retrieval", title, images, found, gallery=len(images))


def zero_shot_classes(
  emoji: Emoji, task: Task, encode_text: Any, templates: tuple[str, ...], min_class_size: int
) -> Iterator[Result]:
  """Groups and subgroups of the held-out concepts, all artists together.

  A class is told by its name in the templates, and ("members") by the names of its emoji in training.
  """
  records = [*emoji.first, *emoji.flags]  # flags are never held out, but one may be taken for one
  rows = np.concatenate([emoji.texts.rows, emoji.flag_rows])
  held_out = np.pad(emoji.held_out, (0, len(emoji.flags)))
  for field in ("group", "subgroup"):
    sizes = Counter(record[field] for record in records)
    classes = sorted(name for name, size in sizes.items() if field == "group" or size >= min_class_size)
    labels = np.array([classes.index(r[field]) if r[field] in classes else -1 for r in records])
    tested, known = held_out & (labels >= 0), ~held_out & (labels >= 0)
    if len(classes) < 2 or not tested.any():
      continue
    images = np.concatenate([emoji.images[vendor].rows[tested[: len(emoji.first)]] for vendor in VENDORS])
    truth = np.tile(labels[tested], len(VENDORS))
    named = class_embeddings(encode_text, [readable(name) for name in classes], templates)
    members = mean_embeddings(rows[known], labels[known], len(classes))
    for how, prompts in (("name", named), ("members", members)):
      found = zero_shot(images, truth, prompts)
      title = f"Held-out {field}s ({len(classes)}), by {'name' if how == 'name' else 'names of members'}"
      yield task.result(
        f"emoji_{field}s_by_{how}", "zeroshot_classification", title, images, found, classes=len(classes)
      )


def readable(slug: str) -> str:
  """ "face-smiling" -> "face smiling"."""
  return slug.replace("-", " ")


def vendor_floor(data: DataConfig, query: str, target: str) -> tuple[Metrics, str]:
  """The raw-pixel floor between two artists; measured once for a set of data."""
  source: Any = data.source
  return _floor(data.dir, source.limit, source.groups, data.trim, query, target)


@functools.lru_cache(maxsize=4)
def _floor(
  directory: str, limit: int | None, groups: tuple[str, ...], trim: bool, query: str, target: str
) -> tuple[Metrics, str]:
  records = base_records(directory, limit, groups)
  pictures = {vendor: list(Pictures(records[vendor], DataConfig(trim=trim))) for vendor in (query, target)}
  ids = [record["concept"] for record in records[query]], [record["concept"] for record in records[target]]
  scores, how = raw_pixel_floor(pictures[query], pictures[target], ids)
  return scores, f"{how}{', margins trimmed' if trim else ''}"
