"""Calibration of the probabilities that a classifier gives: log loss, Brier score and expected calibration error."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmjax.evaluate.results import Metrics

BINS = 15


def calibration(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> Metrics:
  """Scores of the softmax of `logits` as probabilities, in float64. Smaller is better for all three.

  log_loss: mean of -log p(true class), in nats. brier_loss: mean of the squared distance between the probabilities and
  the one-hot truth (Brier 1950), in [0, 2]. calibration_error: difference between confidence and accuracy in 15 bins of
  equal width, weighted by their size (Guo et al. 2017, equation 3).
  """
  probabilities = softmax(logits)
  truth = np.eye(logits.shape[1])[labels]
  confidence = probabilities.max(axis=1)
  return {
    "log_loss": float(log_losses(logits, labels).mean()),
    "brier_loss": float(np.square(probabilities - truth).sum(axis=1).mean()),
    "calibration_error": _calibration_error(confidence, probabilities.argmax(axis=1) == labels),
  }


def prior_calibration(labels: Int[np.ndarray, " n"]) -> Metrics:
  """`calibration` of giving every example the shares of the classes among the examples."""
  shares = np.unique(labels, return_counts=True)[1] / len(labels)
  entropy = float(-(shares * np.log(shares)).sum())
  return {"log_loss": entropy, "brier_loss": float(1 - np.square(shares).sum()), "calibration_error": 0.0}


def log_losses(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
  """-log p(true class) of each example, in nats, in float64."""
  return -log_softmax(logits)[np.arange(len(labels)), labels]


def best_temperature(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> float:
  """Temperature T > 0 with the smallest mean log loss of softmax(logits / T) (Guo et al. 2017, section 4.2).

  Args:
    logits: scores of the classes, for examples that the model was not trained on.
    labels: classes of the examples.
  Returns: T, between 0.01 and 100. 1 leaves the probabilities as they are; more than 1 makes them less certain.
  """
  from scipy.optimize import minimize_scalar

  loss = lambda inverse: float(log_losses(logits * np.exp(inverse), labels).mean())  # convex in 1 / T
  found = minimize_scalar(loss, bounds=(-np.log(100), np.log(100)), method="bounded", options={"xatol": 1e-6})
  return float(np.exp(-found.x))


def softmax(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
  """Probabilities of the classes, in float64."""
  return np.exp(log_softmax(logits))


def log_softmax(logits: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n c"]:
  """Logarithms of the probabilities of the classes, in float64."""
  logits = logits.astype(np.float64)
  shifted = logits - logits.max(axis=1, keepdims=True)
  return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


class Reliability(NamedTuple):
  """Bins of equal width of the confidence, those with examples only.

  Attributes:
    confidence: mean confidence in the bin.
    accuracy: share of right answers in the bin.
    examples: number of examples in the bin.
  """

  confidence: Float[np.ndarray, " bins"]
  accuracy: Float[np.ndarray, " bins"]
  examples: Int[np.ndarray, " bins"]


def reliability(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> Reliability:
  """Confidence and accuracy in 15 bins (Guo et al. 2017, section 2: reliability diagrams)."""
  probabilities = softmax(logits)
  return _reliability(probabilities.max(axis=1), probabilities.argmax(axis=1) == labels)


def rescaled(logits: Float[np.ndarray, "n c"], labels: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n c"]:
  """Divide each half of the examples (every second one) by the best temperature of the other half.

  So no example helps to choose its own temperature, and `calibration` of the result is what temperature scaling is
  worth.
  """
  scaled = np.array(logits, np.float64)
  for first in (0, 1):
    scaled[first::2] /= best_temperature(logits[1 - first :: 2], labels[1 - first :: 2])
  return scaled


def _reliability(confidence: Float[np.ndarray, " n"], right: np.ndarray) -> Reliability:
  bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
  counts = np.bincount(bins, minlength=BINS)
  kept = counts > 0
  mean = lambda values: np.bincount(bins, values, BINS)[kept] / counts[kept]
  return Reliability(mean(confidence), mean(right), counts[kept])


def _calibration_error(confidence: Float[np.ndarray, " n"], right: np.ndarray) -> float:
  found = _reliability(confidence, right)
  return float((np.abs(found.confidence - found.accuracy) * found.examples).sum() / len(confidence))
