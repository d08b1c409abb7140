"""Numbers that a model predicts: regression."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, shown_examples, shown_name
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.regression import REGRESSION, regression
from mmjax.evaluate.results import NUMBERS, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import terms
from mmjax.models.protocols import Predicts
from mmjax.objectives.terms.regress import Regress

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run


class Predictions(NamedTuple):
  """Examples, and their predicted and true numbers in the unit of the data."""

  examples: Examples
  predicted: Float[np.ndarray, " n"]
  true: Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class PredictedNumbers(Evaluator):
  """R^2, mean absolute and root mean squared error of predicted numbers. Chance is the mean of the training data."""

  def applies(self, experiment: Experiment) -> bool:
    return isinstance(_term(experiment), Regress)

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [f"{shown_name(experiment.data)}_numbers/{name}" for name in REGRESSION]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples, predicted, true = shared.once("numbers", lambda: predictions(run, shared))
    mean = run.fitted[_term(run.experiment).target]["mean"]
    found = regression(predicted, true), regression(np.full_like(true, mean), true)
    name, title = f"{examples.name}_numbers", f"{examples.title}: numbers"
    return [make_result(run, name, "regression", title, examples, found, table=NUMBERS)]

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.figures import scatter_chart
    from mmjax.report.page import Section

    _, predicted, true = shared.once("numbers", lambda: predictions(run, shared))
    return [Section("numbers", "Predicted numbers", scatter_chart(true, predicted, xlabel="true", ylabel="predicted"))]


def predictions(run: Run, shared: Shared) -> Predictions:
  """The predicted and true numbers of the shown examples."""
  term = _term(run.experiment)
  examples, scale = shown_examples(run, shared), run.fitted[term.target]
  found = list(over_batches(run, predict, batches(run, examples), term.inputs, (term.target,)))
  true, predicted = (np.concatenate(rows).astype(np.float64) for rows in _columns(found, term.target))
  return Predictions(examples, predicted * scale["std"] + scale["mean"], true * scale["std"] + scale["mean"])


def predict(model: Any, batch: Any) -> Any:
  """Predicted numbers for the rows of a batch, in standard deviations."""
  return model.predict(model.encode(batch))


def _columns(found: Sequence[Any], target: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
  return [kept[target] for kept, _ in found], [predicted for _, predicted in found]


def _term(experiment: Experiment) -> Any:
  """The first term that asks for predicted numbers. None: there is none."""
  return next(iter(terms(experiment, Predicts)), None)
