"""Classification of examples into the classes of the training data."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmjax.evaluate.calibration import best_temperature, calibration, prior_calibration, reliability, rescaled
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, shown_examples, shown_name
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.matching import class_report
from mmjax.evaluate.metrics import chance_classification, classification, classification_names, commonest_share
from mmjax.evaluate.results import CLASSES, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import terms
from mmjax.models.protocols import Classifies

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.objectives.terms.classify import Classify
  from mmjax.report.page import Section
  from mmjax.run import Run

CONFUSIONS = 20
LEAST_CALIBRATED = 4
"""Smallest number of examples for which confidence and accuracy are compared."""
SHOWN = 100
"""Largest number of classes whose confusion matrix is in the results."""


class Guesses(NamedTuple):
  """Examples, the names of the classes, and the true class and the scores of each example."""

  examples: Examples
  names: Sequence[str]
  truth: Int[np.ndarray, " n"]
  logits: Float[np.ndarray, "n classes"]


@dataclasses.dataclass(frozen=True)
class ClassAccuracy(Evaluator):
  """Accuracy of the likeliest class, mean recall and F1 of the classes, calibration, and which classes are confused.

  Chance is the commonest class for all examples, and for the calibration the shares of the classes.
  """

  def applies(self, experiment: Experiment) -> bool:
    return bool(terms(experiment, Classifies))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    model: Any = experiment.model
    names = (*classification_names(model.num_classes), "macro_f1", "log_loss", "brier_loss", "calibration_error")
    return [f"{shown_name(experiment.data)}_classes/{name}" for name in names]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    found = shared.once("classes", lambda: guesses(run, shared))
    examples, names, truth, logits = found
    report = class_report(truth, logits.argmax(axis=1), names)
    metrics = classification(logits, truth) | {"macro_f1": macro_f1(report)} | calibration(logits, truth)
    common = np.full_like(truth, int(np.argmax(np.bincount(truth))))
    chance = chance_classification(len(names)) | {"acc1": commonest_share(truth)} | prior_calibration(truth)
    chance["macro_f1"] = macro_f1(class_report(truth, common, names))
    return [
      make_result(
        run, f"{examples.name}_classes", "classification", f"{examples.title}: classes", examples, (metrics, chance),
        table=CLASSES, classes=len(names), report=report,
        **({"confusion": confusion_matrix(found).tolist()} if len(names) <= SHOWN else {}),
      )
    ]  # fmt: skip

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.page import Section

    found = shared.once("classes", lambda: guesses(run, shared))
    return [
      Section("confusions", "Classes that are confused", _confusions(found)),
      Section("reliability", "Confidence and accuracy", _reliability(found)),
    ]


def guesses(run: Run, shared: Shared) -> Guesses:
  """The scores of the classes of the shown examples."""
  term: Classify = terms(run.experiment, Classifies)[0]  # type: ignore[assignment]
  examples = shown_examples(run, shared)
  found = list(over_batches(run, class_logits, batches(run, examples), term.inputs, (term.label,)))
  truth = np.concatenate([kept[term.label] for kept, _ in found])
  return Guesses(examples, run.fitted[term.label]["classes"], truth, np.concatenate([logits for _, logits in found]))


def confusion_matrix(found: Guesses) -> Int[np.ndarray, "classes classes"]:
  """Number of examples of each class (row) whose likeliest class is each other (column)."""
  counts = np.zeros((len(found.names), len(found.names)), int)
  np.add.at(counts, (found.truth, found.logits.argmax(axis=1)), 1)
  return counts


def macro_f1(report: dict[str, dict]) -> float:
  """Mean F1 of the classes in a result of `class_report`."""
  return float(report["macro avg"]["f1-score"])


def class_logits(model: Any, batch: Any) -> Any:
  """Scores of the classes for the rows of a batch."""
  return model.class_logits(model.encode(batch))


def _reliability(found: Guesses) -> str:
  """Accuracy against confidence, as the model says it and with a temperature."""
  from mmjax.report.figures import line_chart

  if len(found.truth) < LEAST_CALIBRATED:
    return f'<p class="note">Fewer than {LEAST_CALIBRATED} examples.</p>'
  scaled = rescaled(found.logits, found.truth)
  given, after = reliability(found.logits, found.truth), reliability(scaled, found.truth)
  errors = [calibration(logits, found.truth)["calibration_error"] for logits in (found.logits, scaled)]
  chart = line_chart(
    [
      (f"as given, error {errors[0]:.3f}", given.confidence, given.accuracy),
      (f"with a temperature, error {errors[1]:.3f}", after.confidence, after.accuracy),
    ],
    reference=("equal", [0, 1], [0, 1]),
    xlabel="confidence",
    ylabel="accuracy",
    zero=True,
  )
  temperature = best_temperature(found.logits, found.truth)
  note = (
    f"The best temperature of all examples is {temperature:.2f}. For the curve, that of each half of the examples is "
    "chosen on the other half."
  )
  return f'<div class="charts">{chart}</div><p class="note">{note}</p>'


def _confusions(found: Guesses) -> str:
  guess = found.logits.argmax(axis=1)
  counts = Counter((int(t), int(g)) for t, g in zip(found.truth, guess, strict=True) if t != g)
  sizes = np.bincount(found.truth, minlength=len(found.names))
  lines = [
    f"<tr><td>{escape(found.names[truth])}</td><td>{escape(found.names[given])}</td><td>{count}</td>"
    f"<td>{count / sizes[truth]:.0%}</td></tr>"
    for (truth, given), count in counts.most_common(CONFUSIONS)
  ]
  if not lines:
    return '<p class="note">No example was given a wrong class.</p>'
  heads = "".join(f"<th>{head}</th>" for head in ("class", "given as", "examples", "of the class"))
  return f"<table><tr>{heads}</tr>{''.join(lines)}</table>"
