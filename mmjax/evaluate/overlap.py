"""Intersection over union of predicted and true masks."""

import numpy as np
from jaxtyping import Float

from mmjax.evaluate.results import Metrics


def overlaps(logits: Float[np.ndarray, "n h w"], truth: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, " n"]:
  """IoU of every example: pixels whose sigmoid exceeds 1/2 against those whose truth does.

  Where neither mask has a pixel the prediction is right: 1. A pixel that is NaN counts as wrong.
  """
  true = truth > 0.5
  said = np.where(np.isnan(logits), ~true, logits > 0)
  both, either = (said & true).sum(axis=(1, 2)), (said | true).sum(axis=(1, 2))
  return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def constant_overlaps(truth: Float[np.ndarray, "n h w"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
  """IoU of every example for a model that marks every pixel, and for one that marks none."""
  area = (truth > 0.5).mean(axis=(1, 2))
  return area, np.where(area == 0, 1.0, 0.0)


def mean_overlap(found: np.ndarray, everything: np.ndarray, nothing: np.ndarray) -> tuple[Metrics, Metrics]:
  """(metrics, chance) of IoU per example; chance is the better of the two constant masks."""
  return {"miou": float(found.mean())}, {"miou": max(float(everything.mean()), float(nothing.mean()))}
