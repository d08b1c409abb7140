"""Image-text retrieval on the validation split of captioned data other than the emoji."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmjax.data.errors import DataError
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, shown_examples
from mmjax.evaluate.metrics import recall_names
from mmjax.evaluate.results import MEAN_RECALL, RETRIEVAL, Result
from mmjax.evaluate.retrieval import Embedded, Texts, counted, image_text_retrieval
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import captioned, compared, has_emoji, of_images_and_texts

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class ImageTextRetrieval(Evaluator):
  """Retrieval both ways, for models that compare images and texts; and the control with the pairs shuffled."""

  def applies(self, experiment: Experiment) -> bool:
    pairs = any(map(of_images_and_texts, compared(experiment)))
    return captioned(experiment.data) and pairs and not has_emoji(experiment.data)

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    name = experiment.data.source.title
    both = [*recall_names("image_retrieval"), *recall_names("text_retrieval")]
    return [MEAN_RECALL, *(f"{name}/{metric}" for metric in both)]

  def check(self, run: Run, shared: Shared) -> None:
    examples, _ = checked_examples(run, shared)
    if len(examples) < 2:
      raise DataError(f"{examples.title} has one image only, and retrieval chooses among two at least. Add images.")

  def run(self, run: Run, shared: Shared) -> list[Result]:
    captions, name = embedded(run, shared), run.experiment.data.source.title
    images, results = captions.images, []
    for suffix, title, shown, control in (
      ("", f"{name}, validation", images, False),
      ("_shuffled", f"Control: {name} shuffled", images.shuffled(), True),
    ):
      found = image_text_retrieval(shown, captions.texts)
      result = make_result(
        run, f"{name}{suffix}", "zeroshot_retrieval", title, images, found, table=RETRIEVAL, control=control,
        gallery=len(images), skipped=captions.skipped, counts=captions.counts,
      )  # fmt: skip
      results.append(result)
    return results

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.gallery import Exhibition, Shelf, retrieval_sections

    found = embedded(run, shared)
    shelf = Shelf("validation", found.records, found.images, run)
    return retrieval_sections(Exhibition(shelf, found.captions, found.texts, (), np.ones(len(found.captions), bool)))


def embedded(run: Run, shared: Shared) -> Captioned:
  """The validation split, embedded once."""
  return shared.once("captioned", lambda: Captioned(run, shown_examples(run, shared)))


class Captioned:
  """The validation split, every image and every different caption embedded once.

  Attributes:
    records: the images that can be read.
    skipped: number of the others.
    captions: all captions of these images.
    images, texts: embeddings; equal ids answer each other, by evaluation.counts.
    counts: a sentence about what counts.
  """

  def __init__(self, run: Run, examples: Examples):
    from mmjax.evaluate.images import Images

    self.records, self.skipped = list(examples.records), examples.skipped
    rows = run.encode_image(Images(self.records, run.experiment.data))
    texts = Texts.of(self.records)
    image_ids, text_ids, self.counts = counted(self.records, texts, run.experiment.evaluation.counts)
    self.captions = texts.captions
    self.images = Embedded(rows, image_ids)
    self.texts = Embedded(run.encode_text(texts.distinct)[texts.row], text_ids)
