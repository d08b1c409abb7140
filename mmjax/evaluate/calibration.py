"""Calibration of the probabilities that a classifier gives: log loss, Brier score and expected calibration error."""

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


def _calibration_error(confidence: Float[np.ndarray, " n"], right: np.ndarray) -> float:
  bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
  gaps = np.bincount(bins, confidence, BINS) - np.bincount(bins, right, BINS)
  return float(np.abs(gaps).sum() / len(confidence))
