"""Metrics of a classifier's scores are scikit-learn's, and say what chance would give."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, confusion_matrix, f1_score, log_loss

from mmjax.evaluate.calibration import calibration, prior_calibration, reliability, rescaled, softmax
from mmjax.evaluators import classes

RNG = np.random.default_rng(0)
TRUTH = RNG.choice(4, 200, p=[0.6, 0.2, 0.15, 0.05])
LOGITS = (RNG.normal(size=(200, 4)) + 1.5 * np.eye(4)[TRUTH]).astype(np.float32)


def test_scores_equal_scikit_learn():
  found, probabilities = calibration(LOGITS, TRUTH), softmax(LOGITS)
  assert found["log_loss"] == pytest.approx(log_loss(TRUTH, probabilities), abs=1e-9)
  assert found["brier_loss"] == pytest.approx(brier_score_loss(TRUTH, probabilities), abs=1e-9)
  guesses = classes.Guesses(None, "abcd", TRUTH, LOGITS)
  np.testing.assert_array_equal(classes.confusion_matrix(guesses), confusion_matrix(TRUTH, LOGITS.argmax(1)))
  report = classes.class_report(TRUTH, LOGITS.argmax(1), "abcd")
  assert classes.macro_f1(report) == pytest.approx(f1_score(TRUTH, LOGITS.argmax(1), average="macro"), abs=1e-9)


def test_the_calibration_error_is_the_gap_of_each_bin():
  probabilities = softmax(LOGITS)
  confidence, right = probabilities.max(1), probabilities.argmax(1) == TRUTH
  gaps = 0.0
  for low in np.arange(15) / 15:
    inside = (confidence >= low) & (confidence < low + 1 / 15)
    if inside.any():
      gaps += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
  assert calibration(LOGITS, TRUTH)["calibration_error"] == pytest.approx(gaps, abs=1e-12)


def test_certain_answers_are_finite():
  sure = np.float32([[1000.0, 0.0], [0.0, 1000.0]])
  right, wrong = calibration(sure, np.array([0, 1])), calibration(sure, np.array([1, 0]))
  assert right == {"log_loss": 0.0, "brier_loss": 0.0, "calibration_error": 0.0}
  assert wrong == {"log_loss": 1000.0, "brier_loss": 2.0, "calibration_error": 1.0}


def test_chance_is_to_give_the_shares_of_the_classes():
  shares = np.bincount(TRUTH) / len(TRUTH)
  expected = calibration(np.broadcast_to(np.log(shares), (200, 4)), TRUTH)
  assert prior_calibration(TRUTH) == pytest.approx(expected, abs=1e-9)


def test_reliability_is_the_mean_of_each_bin():
  found = reliability(LOGITS, TRUTH)
  probabilities = softmax(LOGITS)
  confidence, right = probabilities.max(1), probabilities.argmax(1) == TRUTH
  inside = (confidence >= 14 / 15) & (confidence <= 1)
  assert found.examples.sum() == 200 and found.examples[-1] == inside.sum()
  assert found.confidence[-1] == pytest.approx(confidence[inside].mean())
  assert found.accuracy[-1] == pytest.approx(right[inside].mean())


def test_a_temperature_repairs_confidence_and_is_chosen_on_other_examples():
  sure = LOGITS * 8
  before, after = calibration(sure, TRUTH), calibration(rescaled(sure, TRUTH), TRUTH)
  assert after["calibration_error"] < before["calibration_error"] / 2 and after["log_loss"] < before["log_loss"] / 2
  other = TRUTH.copy()
  other[0] = (other[0] + 1) % 4
  np.testing.assert_array_equal(rescaled(sure, other)[::2], rescaled(sure, TRUTH)[::2])
