"""Verification of identities of the validation split, such as speakers that were never heard."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.data.columns.class_label import ClassLabel
from mmjax.data.columns.sound import PADDED
from mmjax.data.errors import DataError
from mmjax.data.places import spread
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, example_columns, shown_examples, shown_name
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.results import VERIFICATION, Metrics, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import terms
from mmjax.evaluate.verification import all_pairs, verification
from mmjax.models.protocols import Identifies

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.objectives.terms.margin_softmax import MarginSoftmax
  from mmjax.report.page import Section
  from mmjax.run import Run

CHANCE = {"eer": 0.5, "tar@far=0.01": 0.01, "tar@far=0.001": 0.001, "balanced_accuracy": 0.5, "auc": 0.5}


class _Found(NamedTuple):
  """Examples, their identities, embeddings, and simple features."""

  examples: Examples
  identities: np.ndarray
  embeddings: Float[np.ndarray, "n dim"]
  raw: Float[np.ndarray, "n features"]


@dataclasses.dataclass(frozen=True)
class Verification(Evaluator):
  """Verification over all pairs of examples: equal error rate, true acceptances at a rate of false ones, AUC.

  The floor is the cosine of standardised simple features: of sounds, the mean of the frames; otherwise all values.
  """

  pairs_from: int = 2000
  """Number of examples, evenly spread, of which all pairs are taken."""
  examples: int = 8
  """Number of pairs in the report that are told wrong with the largest margin."""

  def applies(self, experiment: Experiment) -> bool:
    return bool(terms(experiment, Identifies))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [f"{shown_name(experiment.data)}_verification/{name}" for name in CHANCE]

  def check(self, run: Run, shared: Shared) -> None:
    examples, _ = checked_examples(run, shared)
    names = np.array(_identities(run, examples))
    if len(set(names)) < 2 or len(set(names)) == len(names):
      raise DataError(
        f"{examples.title} has {len(names)} examples of {len(set(names))} identities: verification needs pairs of one "
        "and of two. Add examples, or name another field of the column."
      )

  def run(self, run: Run, shared: Shared) -> list[Result]:
    found = self._found(run, shared)
    seen = set(run.fitted[_term(run.experiment).label]["classes"])
    unseen = sum(name not in seen for name in set(found.identities))
    metrics, floor = _scores(found.embeddings, found.identities), _scores(found.raw, found.identities)
    title = f"{found.examples.title}: same or other? ({len(set(found.identities))} identities, {unseen} never seen)"
    return [
      make_result(
        run, f"{found.examples.name}_verification", "verification", title, found.embeddings,
        (metrics, {name: CHANCE[name] for name in metrics}), table=VERIFICATION, floor=floor,
        floor_is="simple features",
      )
    ]  # fmt: skip

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.page import Section

    found = self._found(run, shared)
    column = example_columns(run.experiment.data, found.examples.features)[_term(run.experiment).source]
    cosines = found.embeddings @ found.embeddings.T
    same = found.identities[:, None] == found.identities[None]
    upper = np.triu(np.ones_like(same), k=1)
    cards = []
    for kind, wrong, sign in (("one identity, far apart", same & upper, 1), ("two, near", ~same & upper, -1)):
      places = np.argwhere(wrong)
      order = np.argsort(sign * cosines[wrong])[: self.examples // 2]
      for first, second in places[order].tolist():
        drawn = "".join(
          f"{column.show(found.examples[place])}{escape(found.examples[place]['id'])}<br>" for place in (first, second)
        )
        note = f"{kind}: cosine {cosines[first, second]:.2f}"
        cards.append(f'<figure style="width: 220px">{drawn}<figcaption>{note}</figcaption></figure>')
    return [Section("verification", "Hardest pairs", f'<div class="tiles">{"".join(cards)}</div>')]

  def _found(self, run: Run, shared: Shared) -> _Found:
    def compute() -> _Found:
      term, examples = _term(run.experiment), shown_examples(run, shared)
      places = spread(len(examples), self.pairs_from)
      some = dataclasses.replace(examples, records=[examples[place] for place in places])
      ask = Embeddings(term.source)
      rows = list(over_batches(run, ask, batches(run, some), (term.source,), (term.source,)))
      raw = np.concatenate([simple_features(np.asarray(kept[term.source])) for kept, _ in rows])
      return _Found(some, np.array(_identities(run, some)), np.concatenate([each for _, each in rows]), _standard(raw))

    return shared.once(("verification", self.pairs_from), compute)


@dataclasses.dataclass(frozen=True)
class Embeddings:
  """(model, batch with the source) -> unit-norm embeddings."""

  source: str

  def __call__(self, model: Any, batch: Any) -> Any:
    return model.project(model.encode(batch))[self.source]


def simple_features(rows: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n features"]:
  """Features without a model: of [frames, size] the mean over the frames of the clip, otherwise all values."""
  if rows.ndim != 3:
    return rows.reshape(len(rows), -1).astype(np.float64)
  real = rows[:, :, :1] > PADDED / 2
  return np.where(real, rows, 0).sum(axis=1, dtype=np.float64) / np.maximum(real.sum(axis=1), 1)


def _standard(rows: np.ndarray) -> np.ndarray:
  """Unit-norm rows of columns with mean 0 and deviation 1."""
  rows = (rows - rows.mean(0)) / np.maximum(rows.std(0), 1e-9)
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def _scores(rows: np.ndarray, identities: np.ndarray) -> Metrics:
  return verification(all_pairs(rows, identities))


def _term(experiment: Experiment) -> MarginSoftmax:
  return terms(experiment, Identifies)[0]  # type: ignore[return-value]


def _identities(run: Run, examples: Examples) -> list[str]:
  column = example_columns(run.experiment.data, examples.features)[_term(run.experiment).label]
  if not isinstance(column, ClassLabel):
    raise DataError(f"verification reads identities from a column ClassLabel, and there is a {type(column).__name__}.")
  return [column.name(record) for record in examples.records]
