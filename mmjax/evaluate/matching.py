"""Does a model tell images with their own text from images with another's? And reports per class."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.evaluate.results import Metrics


def match_scores(scores: Float[np.ndarray, " n"], matches: Bool[np.ndarray, " n"]) -> tuple[Metrics, Metrics]:
  """(metrics, chance): the area under the ROC curve, and accuracy at score > 0, by scikit-learn.

  A NaN score counts as the worst possible one, so that a broken model is never better than chance.

  Args:
    scores: the match logit minus the other.
    matches: whether image and text belong together; both kinds must be there.
  """
  from sklearn.metrics import accuracy_score, roc_auc_score

  scores = np.asarray(scores, np.float64)
  beyond = 1 + np.abs(np.nan_to_num(scores)).max()
  scores = np.where(np.isnan(scores), np.where(matches, -beyond, beyond), scores)
  metrics = {
    "itm_auc": float(roc_auc_score(matches, scores)),
    "itm_accuracy": float(accuracy_score(matches, scores > 0)),
  }
  share = float(np.mean(matches))
  return metrics, {"itm_auc": 0.5, "itm_accuracy": max(share, 1 - share)}


def other_texts(concepts: Int[np.ndarray, " n"], seed: int = 0) -> Int[np.ndarray, " n"]:
  """For every image the place of a text of another concept, drawn at random; -1 where there is none."""
  order = np.random.default_rng(seed).permutation(len(concepts))
  place = np.empty(len(order), np.int64)
  place[order] = np.arange(len(order))
  found = np.full(len(concepts), -1)
  for shift in range(1, len(concepts)):
    candidate = order[(place + shift) % len(order)]
    take = (found < 0) & (concepts[candidate] != concepts)
    found[take] = candidate[take]
    if (found >= 0).all():
      break
  return found


def hardest_texts(
  images: Float[np.ndarray, "n dim"],
  texts: Float[np.ndarray, "m dim"],
  image_concepts: Int[np.ndarray, " n"],
  text_concepts: Int[np.ndarray, " m"],
) -> Int[np.ndarray, " n"]:
  """Index of the most similar text of another concept, for every image. -1 if there is none.

  Args:
    images: embeddings of the images.
    texts: embeddings of the texts.
    image_concepts: concepts of the images.
    text_concepts: concepts of the texts.
  """
  found = np.full(len(images), -1)
  for start in range(0, len(images), 1024):
    rows = slice(start, start + 1024)
    other = image_concepts[rows, None] != text_concepts[None]
    similarity = np.where(other, images[rows] @ texts.T, -np.inf)
    found[rows] = np.where(other.any(axis=1), similarity.argmax(axis=1), -1)
  return found


def class_report(truth: Int[np.ndarray, " n"], guess: Int[np.ndarray, " n"], names: Sequence[str]) -> dict[str, dict]:
  """Precision, recall, F1 and support per class that occurs, and their averages: scikit-learn's report as a dict."""
  from sklearn.metrics import classification_report

  present = sorted(set(np.unique(truth).tolist()) | set(np.unique(guess).tolist()))
  named = [names[label] for label in present]
  return classification_report(truth, guess, labels=present, target_names=named, output_dict=True, zero_division=0)
