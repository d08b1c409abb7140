"""Retrieval between the items of two columns by scores of all pairs, such as those of a model that reads both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mmjax.data.columns.base import Column
from mmjax.data.errors import DataError
from mmjax.data.places import spread
from mmjax.data.records import PRIMARY
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, example_columns, validation_examples
from mmjax.evaluate.forward import gathered, over_batches, over_rows
from mmjax.evaluate.metrics import TIE, chance_recalls, ranks, recall_names, recalls
from mmjax.evaluate.results import RETRIEVAL, Metrics, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries, terms
from mmjax.evaluators.pair_retrieval import PairEmbeddings
from mmjax.models.protocols import Compares, ScoresPairs
from mmjax.types import Encoded

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run

_CANDIDATES = 32  # texts that a model scores with a video at a time


class PairScores(NamedTuple):
  """Scores of every item with every text of the validation split.

  Attributes:
    examples: the records.
    concepts: their concepts. Items and texts of equal concepts answer each other.
    scores: larger is nearer.
  """

  examples: Examples
  concepts: Int[np.ndarray, " n"]
  scores: Float[np.ndarray, "n n"]


@dataclasses.dataclass(frozen=True)
class PairScoreRetrieval(Evaluator):
  """Retrieval both ways between two columns by the scores of all pairs, and the control with the pairs shuffled.

  PairRetrieval compares embeddings, which need not be held for all pairs at once.

  The score of a pair is the cosine of their embeddings; or what the model computes from both items, if the term
  PairSoftmax trains it. The report shows items with their text, and the text that the model found first.
  """

  between: tuple[str, str] = ("video", "text")
  """Names of the two columns. The second one is a text, the main caption of the record."""
  examples: int = 12
  """Number of items in the report."""

  def applies(self, experiment: Experiment) -> bool:
    compared = {name for term in terms(experiment, Compares) for name in getattr(term, "between", ())}
    scored = {name for term in terms(experiment, ScoresPairs) for name in term.needs}
    there = set(self.between) <= set(entries(experiment.data))
    return there and (set(self.between) <= compared or set(self.between) <= scored)

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    name = experiment.data.source.title
    return [f"{name}/{metric}" for column in self.between for metric in recall_names(f"{column}_retrieval")]

  def check(self, run: Run, shared: Shared) -> None:
    examples, _ = checked_examples(run, shared)
    if len(examples) < 2:
      raise DataError(f"{examples.title} has one record only, and retrieval chooses among two at least. Add some.")

  def run(self, run: Run, shared: Shared) -> list[Result]:
    found, name = self.paired(run, shared), run.experiment.data.source.title
    shuffled = np.random.default_rng(0).permutation(found.concepts)
    results = []
    for suffix, title, concepts, control in (
      ("", found.examples.title, found.concepts, False),
      ("_shuffled", f"Control: {name} shuffled", shuffled, True),
    ):
      result = make_result(
        run, f"{name}{suffix}", "zeroshot_retrieval", title, found.examples, self._both(found, concepts),
        table=RETRIEVAL, control=control, gallery=len(found.examples), skipped=found.examples.skipped,
        counts="all items and texts of the same concept",
      )  # fmt: skip
      results.append(result)
    return results

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.page import Section

    found = self.paired(run, shared)
    column = example_columns(run.experiment.data, found.examples.features)[self.between[0]]
    cards = [_card(found, column, place) for place in spread(len(found.examples), self.examples)]
    html = (
      f'<p>Each with its text, and the text that the model finds for it.</p><div class="tiles">{"".join(cards)}</div>'
    )
    return [Section(f"{self.between[0]}_examples", f"Examples: {self.between[0]} and text", html)]

  def paired(self, run: Run, shared: Shared) -> PairScores:
    """The scores of all pairs of the validation split, computed once."""
    return shared.once(("paired", self.between), lambda: self._scored(run))

  def _scored(self, run: Run) -> PairScores:
    examples, (item, text) = validation_examples(run), self.between
    by_pairs = any(set(self.between) <= set(term.needs) for term in terms(run.experiment, ScoresPairs))
    ask = _Encode(item, text) if by_pairs else PairEmbeddings((item, text))
    kept, found = zip(*over_batches(run, ask, batches(run, examples), self.between, ("concept",)), strict=True)
    concepts = np.concatenate([each["concept"] for each in kept])
    first, second = gathered(found)
    scores = pair_scores(run, item, first, second) if by_pairs else first @ second.T
    return PairScores(examples, concepts, scores)

  def _both(self, found: PairScores, concepts: Int[np.ndarray, " n"]) -> tuple[Metrics, Metrics]:
    """(recalls both ways, chance), if the texts have these concepts."""
    positive, (item, text) = found.concepts[:, None] == concepts[None], self.between
    to_item, to_text = f"{item}_retrieval", f"{text}_retrieval"
    metrics = recalls(ranks(found.scores.T, positive.T, tie=TIE), to_item)
    metrics |= recalls(ranks(found.scores, positive, tie=TIE), to_text)
    chance = chance_recalls(concepts, found.concepts, to_item) | chance_recalls(found.concepts, concepts, to_text)
    return metrics, chance


def pair_scores(run: Run, item: str, items: Encoded, texts: Float[np.ndarray, "m width"]) -> Float[np.ndarray, "n m"]:
  """Scores of a model of every item with every text, computed in tiles.

  Args:
    run: the run.
    item: name of the column of the items.
    items: their encodings.
    texts: pooled vectors of the texts.
  """
  columns, rows = [], len(items.mask)
  for start in range(0, len(texts), _CANDIDATES):
    places = np.minimum(np.arange(start, start + _CANDIDATES), len(texts) - 1)  # all tiles have one shape
    candidates = texts[places]

    def take(wanted: np.ndarray, candidates: np.ndarray = candidates) -> Any:
      picked = jax.tree.map(lambda leaf: leaf[wanted], items)
      return picked, np.broadcast_to(candidates[None], (len(wanted), *candidates.shape))

    columns.append(gathered(over_rows(run, _Score(item), rows, take))[:, : len(texts) - start])
  return np.concatenate(columns, axis=1)


@dataclasses.dataclass(frozen=True)
class _Encode:
  """Encodings of the items, and pooled vectors of the texts."""

  item: str
  text: str

  def __call__(self, model: Any, batch: Mapping[str, Any]) -> Any:
    found = model.encode(batch)
    return found[self.item], found[self.text].pooled


@dataclasses.dataclass(frozen=True)
class _Score:
  """Scores of items with candidates."""

  item: str

  def __call__(self, model: Any, rows: Any) -> Any:
    return model.pair_scores({self.item: rows[0]}, rows[1]).astype(jnp.float32)


def _card(found: PairScores, column: Column, place: int) -> str:
  """HTML of an item with its text, and the text with the largest score."""
  first = int(found.scores[place].argmax())
  record, other = found.examples[place], found.examples[first]
  right = found.concepts[first] == found.concepts[place]
  mark = '<b class="good">right</b>' if right else '<b class="bad">wrong</b>'
  said = f"{escape(record['captions'][PRIMARY][0])}<br>{mark}: {escape(other['captions'][PRIMARY][0])}"
  return f'<figure style="width: 300px">{column.show(record)}<figcaption>{said}</figcaption></figure>'
