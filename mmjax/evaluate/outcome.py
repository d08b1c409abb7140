"""Predictions of a model of towers, which are classes or numbers, and their scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float

from mmjax.evaluate.calibration import log_losses
from mmjax.evaluate.metrics import commonest_share
from mmjax.evaluate.regression import regression
from mmjax.evaluate.traits import terms
from mmjax.models.joined import JoinedConfig
from mmjax.models.protocols import Classifies, Predicts
from mmjax.objectives.terms.classify import Classify
from mmjax.objectives.terms.regress import Regress

if TYPE_CHECKING:
  from mmjax.experiment import Experiment


class Outcome(NamedTuple):
  """Prediction of a model of towers.

  Attributes:
    inputs: names of the arrays that the model reads.
    target: name of the column with the truth.
    metric: "acc1" for classes, "r2" for a number.
  """

  inputs: tuple[str, ...]
  target: str
  metric: str

  def score(self, outputs: Float[np.ndarray, "n outputs"], truth: np.ndarray) -> float:
    """Accuracy, or R^2. Larger is better."""
    if self.metric == "r2":
      return regression(outputs[:, 0], truth)["r2"]
    return float((outputs.argmax(axis=1) == truth).mean())

  def chance(self, truth: np.ndarray) -> float:
    """Score of guessing: the share of the commonest class, or 0."""
    return 0.0 if self.metric == "r2" else commonest_share(truth)

  def loss(self, outputs: Float[np.ndarray, "n outputs"], truth: np.ndarray) -> float:
    """Log loss in nats, or the squared error in variances of the training data. Smaller is better."""
    if self.metric == "r2":
      return float(np.square(outputs[:, 0].astype(np.float64) - truth).mean())
    return float(log_losses(outputs, truth).mean())


def outcome(experiment: Experiment) -> Outcome | None:
  """Return the prediction of the model of an experiment. None: it has no towers, or predicts no class or number."""
  if not isinstance(experiment.model, JoinedConfig):
    return None
  for term in (*terms(experiment, Classifies), *terms(experiment, Predicts)):
    if isinstance(term, Classify):
      return Outcome(term.inputs, term.label, "acc1")
    if isinstance(term, Regress):
      return Outcome(term.inputs, term.target, "r2")
  return None
