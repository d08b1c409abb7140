"""The emoji suite: retrieval across artists, concepts never seen, and classes nobody named in training."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mmjax.data.errors import DataError
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.forward import text_tokenizer
from mmjax.evaluate.metrics import classification_names, recall_names
from mmjax.evaluate.results import MEAN_RECALL, RETRIEVAL, ZERO_SHOT, Result
from mmjax.evaluate.retrieval import image_retrieval, image_text_retrieval
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import compares, has_emoji
from mmjax.evaluate.zero_shot import class_embeddings, mean_embeddings, zero_shot

if TYPE_CHECKING:
  from mmjax.evaluate.emoji import Emoji, EmojiRecords
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run

_COUNTS = "all images and names of the same emoji, by any artist"


@dataclasses.dataclass(frozen=True)
class EmojiSuite(Evaluator):
  """Emoji, for models that compare images and texts: artists, concepts and classes that training has not shown."""

  templates: tuple[str, ...] = ("{}", "an emoji of {}", "a picture of {}", "a drawing of {}", "{} emoji")
  """Prompts for zero-shot classification; {} is where the class goes. Their embeddings are averaged."""
  min_class_size: int = 10
  """Subgroups with fewer members than this are no zero-shot class."""

  def __post_init__(self) -> None:
    if self.min_class_size < 1:
      raise ValueError(f"EmojiSuite.min_class_size is {self.min_class_size}: it must be at least 1")
    wrong = [template for template in self.templates if template.count("{}") != 1]
    if wrong or not self.templates:
      raise ValueError(f"EmojiSuite.templates must be texts with one {{}} each for the class; got {wrong}")

  def applies(self, experiment: Experiment) -> bool:
    return has_emoji(experiment.data) and compares(experiment)

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    from mmjax.evaluate.emoji import EmojiRecords

    emoji = EmojiRecords(experiment.data)
    both = [*recall_names("image_retrieval"), *recall_names("text_retrieval")]
    names: dict[str, list[str]] = {}
    for vendor in emoji.tested:
      names |= {f"emoji_{vendor}_to_{target}": recall_names("image_retrieval") for target in emoji.targets(vendor)}
      names[f"emoji_{vendor}"] = both
    names |= {f"emoji_heldout_{vendor}": both for vendor in emoji.records if emoji.held_out.any()}
    for task in class_tasks(emoji, self.min_class_size):
      names |= {f"emoji_{task.field}s_by_{how}": classification_names(len(task.classes)) for how in ("name", "members")}
    return [MEAN_RECALL, *(f"{dataset}/{metric}" for dataset, metrics in names.items() for metric in metrics)]

  def check(self, run: Run, shared: Shared) -> None:
    from mmjax.evaluate.emoji import EmojiRecords

    text_tokenizer(run)  # raises UserError for a run without text
    found = len(EmojiRecords(run.experiment.data).first)
    if found < 2:
      raise DataError(
        f"{found} emoji of these groups without flags and skin tones are by all artists, and retrieval chooses among "
        "two at least. Raise --data.source.limit, or add groups."
      )

  def run(self, run: Run, shared: Shared) -> list[Result]:
    emoji = embedded(run, shared)
    return [*vendor_hold_out(run, emoji), *concept_hold_out(run, emoji), *self._zero_shot(run, emoji)]

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.evaluate.emoji import ARTISTS
    from mmjax.report.gallery import Exhibition, Shelf, retrieval_sections

    emoji = embedded(run, shared)
    shelves = {
      vendor: Shelf(ARTISTS[vendor], emoji.records[vendor], images, run) for vendor, images in emoji.images.items()
    }
    first = (*emoji.unseen, "noto")[0]
    others = [shelves[vendor] for vendor in emoji.targets(first)]
    return retrieval_sections(Exhibition(shelves[first], emoji.captions, emoji.texts, others, emoji.held_out))

  def _zero_shot(self, run: Run, emoji: Emoji) -> Iterator[Result]:
    """Groups and subgroups of the held-out concepts, all artists together.

    A class is told by its name in the templates, and ("members") by the names of its emoji in training.
    """
    rows = np.concatenate([emoji.texts.rows, emoji.flag_rows])
    for field, classes, labels, tested, known in class_tasks(emoji, self.min_class_size):
      images = np.concatenate([each.rows[tested[: len(emoji.first)]] for each in emoji.images.values()])
      truth = np.tile(labels[tested], len(emoji.images))
      named = class_embeddings(run.encode_text, [readable(name) for name in classes], self.templates)
      members = mean_embeddings(rows[known], labels[known], len(classes))
      for how, prompts in (("name", named), ("members", members)):
        found = zero_shot(images, truth, prompts)
        title = f"Held-out {field}s ({len(classes)}), by {'name' if how == 'name' else 'names of members'}"
        yield make_result(
          run, f"emoji_{field}s_by_{how}", "zeroshot_classification", title, images, found, table=ZERO_SHOT,
          classes=len(classes),
        )  # fmt: skip


def embedded(run: Run, shared: Shared) -> Emoji:
  """All emoji, embedded once."""
  from mmjax.evaluate.emoji import Emoji

  return shared.once("emoji", lambda: Emoji(run))


def vendor_hold_out(run: Run, emoji: Emoji) -> Iterator[Result]:
  """Images by an artist that was not trained on: to the artists that were, and from and to text."""
  from mmjax.evaluate.emoji import ARTISTS, vendor_floor

  for vendor in emoji.tested:
    name, images = emoji.title(vendor), emoji.images[vendor]
    for target in emoji.targets(vendor):
      floor, how = vendor_floor(run.experiment.data, vendor, target)
      more = {"counts": _COUNTS, "floor": floor, "floor_is": how}
      found = image_retrieval(images, emoji.images[target])
      yield make_result(
        run, f"emoji_{vendor}_to_{target}", "image_retrieval", f"{name} to {ARTISTS[target]}", images, found,
        table=RETRIEVAL, gallery=len(emoji.images[target]), **more,
      )  # fmt: skip
    found = image_text_retrieval(images, emoji.texts)
    title = f"{name} and names"
    yield make_result(
      run, f"emoji_{vendor}", "zeroshot_retrieval", title, images, found, table=RETRIEVAL, gallery=len(images),
      counts=_COUNTS,
    )  # fmt: skip
    found = image_text_retrieval(images.shuffled(), emoji.texts)
    yield make_result(
      run, f"emoji_{vendor}_shuffled", "zeroshot_retrieval", f"Control: {title} shuffled", images, found,
      table=RETRIEVAL, gallery=len(images), control=True, counts=_COUNTS,
    )  # fmt: skip


def concept_hold_out(run: Run, emoji: Emoji) -> Iterator[Result]:
  """Images and names of concepts that no artist showed in training, one artist at a time."""
  from mmjax.evaluate.emoji import ARTISTS

  texts = emoji.texts[emoji.held_out]
  for vendor in emoji.images if len(texts) else ():
    images = emoji.images[vendor][emoji.held_out]
    title = f"Held-out concepts, {ARTISTS[vendor]}"
    found = image_text_retrieval(images, texts)
    yield make_result(
      run, f"emoji_heldout_{vendor}", "zeroshot_retrieval", title, images, found, table=RETRIEVAL,
      gallery=len(images), counts=_COUNTS,
    )  # fmt: skip


class ClassTask(NamedTuple):
  """A classification of emoji.

  Attributes:
    field: the field of a record that names its class.
    classes: their names.
    labels: the class of every emoji, the flags last; -1: of none of them.
    tested: the emoji that are classified: concepts never trained on.
    known: the other ones that have a class.
  """

  field: str
  classes: list[str]
  labels: np.ndarray
  tested: np.ndarray
  known: np.ndarray


def class_tasks(emoji: EmojiRecords, min_class_size: int) -> Iterator[ClassTask]:
  """By group and by subgroup, where there are two classes at least and anything to classify."""
  records = [*emoji.first, *emoji.flags]  # flags are never held out, but one may be taken for one
  held_out = np.pad(emoji.held_out, (0, len(emoji.flags)))
  for field in ("group", "subgroup"):
    sizes = Counter(record[field] for record in records)
    classes = sorted(name for name, size in sizes.items() if field == "group" or size >= min_class_size)
    labels = np.array([classes.index(r[field]) if r[field] in classes else -1 for r in records])
    tested, known = held_out & (labels >= 0), ~held_out & (labels >= 0)
    if len(classes) >= 2 and tested.any():
      yield ClassTask(field, classes, labels, tested, known)


def readable(slug: str) -> str:
  """ "face-smiling" -> "face smiling"."""
  return slug.replace("-", " ")
