"""Image-text matching: does the match head tell right pairs from wrong ones, and does it improve retrieval?"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from mmjax.data.errors import DataError
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import shown_examples, shown_name
from mmjax.evaluate.matching import hardest_texts, match_scores, other_texts
from mmjax.evaluate.metrics import recall_names
from mmjax.evaluate.pairs import Pairs
from mmjax.evaluate.reranking import reranked
from mmjax.evaluate.results import MATCHING, RETRIEVAL, Result, Table
from mmjax.evaluate.retrieval import Embedded
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import captioned, terms
from mmjax.models.protocols import Matches

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run


log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class MatchedPairs(Evaluator):
  """Matching with random and with hard negatives, and retrieval before and after re-ranking.

  Hard negatives and re-ranking need a model with a shared space. Data of a single concept gives no results.
  """

  rerank: int = 16
  """Number of the most similar images or texts that the match head orders anew; 0: none."""

  def __post_init__(self) -> None:
    if self.rerank < 0:
      raise ValueError(f"MatchedPairs.rerank is {self.rerank}: it must not be negative")

  def applies(self, experiment: Experiment) -> bool:
    return captioned(experiment.data) and bool(terms(experiment, Matches))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    name, embeds = shown_name(experiment.data), hasattr(experiment.model.build(), "project")
    names = [f"{name}_itm_{negatives}/{metric}" for negatives in ("random", "hard")[: 1 + embeds] for metric in ITM]
    if embeds and self.rerank:
      both = [*recall_names("image_retrieval"), *recall_names("text_retrieval")]
      names += [f"{name}_reranked/{metric}" for metric in both]
    return names

  def check(self, run: Run, shared: Shared) -> None:
    examples, _ = checked_examples(run, shared)
    if len({int(record["concept"]) for record in examples.records}) < 2:
      if run.experiment.evaluation.best_metric in self.metrics(run.experiment):
        raise DataError(f"{examples.title} has one concept only, so that matching cannot be measured. Add images.")
      log.warning("%s has one concept only: matching will give no results.", examples.title)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples = shown_examples(run, shared)
    if len({int(record["concept"]) for record in examples.records}) < 2:
      return []
    shown = Pairs(run, examples)
    other = other_texts(shown.image_concepts)
    results = [matching(shown, "random", np.where(other < 0, -1, shown.texts.first[other]))]
    if shown.embedded is not None:
      images, texts = shown.embedded
      concepts = shown.image_concepts, shown.text_concepts
      results.append(matching(shown, "hard", hardest_texts(images.rows, texts.rows, *concepts)))
      if self.rerank:
        results.append(reranking(shown, images, texts, self.rerank))
    return results


ITM = ("itm_auc", "itm_accuracy")
"""The names of the metrics of `match_scores`."""


def matching(shown: Pairs, negatives: str, other: Int[np.ndarray, " n"]) -> Result:
  """Every image with its first caption, and with another: drawn at random, or the most similar ("hard").

  Args:
    shown: images and captions.
    negatives: "random" or "hard".
    other: for each image the place of that other caption; -1 where there is none.
  """
  kept = np.flatnonzero(other >= 0)
  images, texts = (
    np.concatenate([np.arange(len(shown.examples)), kept]),
    np.concatenate([shown.texts.first, other[kept]]),
  )
  matches = np.arange(len(images)) < len(shown.examples)
  found = match_scores(shown.match(images, texts), matches)
  title = f"{shown.examples.title}: its own text, or {'any' if negatives == 'random' else 'the most similar'} other"
  return _result(shown, f"itm_{negatives}", "image_text_matching", title, found, MATCHING, n=len(images))


def reranking(shown: Pairs, images: Embedded, texts: Embedded, top: int) -> Result:
  """Evaluate retrieval in both directions with re-ranking by the matching head.

  Args:
    shown: examples and the matching score.
    images: embeddings of the images.
    texts: embeddings of the texts.
    top: number of most similar candidates that are ranked again.
  """
  ways = (
    (texts, images, lambda queries, items: shown.match(items, queries), "image_retrieval"),
    (images, texts, shown.match, "text_retrieval"),
  )
  found = [reranked(queries, gallery, match, top, prefix) for queries, gallery, match, prefix in ways]
  after, chance, before = (one | other for one, other in zip(*found, strict=True))
  title = f"{shown.examples.title}, first {top} re-ranked"
  more = {"gallery": len(images), "counts": shown.counts}
  more |= {"floor": before, "floor_is": "retrieval by similarity alone, not re-ranked"}
  return _result(shown, "reranked", "zeroshot_retrieval", title, (after, chance), RETRIEVAL, **more)


def _result(shown: Pairs, suffix: str, task: str, title: str, found: Any, table: Table, **more: Any) -> Result:
  name = f"{shown.examples.name}_{suffix}"
  return make_result(shown.run, name, task, title, shown.examples, found, table=table, **more)
