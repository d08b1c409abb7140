"""Verification: are two examples of one identity? Error rates over thresholds of a score."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from mmjax.evaluate.results import Metrics

FOLDS = 10


class Trials(NamedTuple):
  """Pairs of examples.

  Attributes:
    scores: larger is nearer.
    same: True for pairs of one identity.
  """

  scores: Float[np.ndarray, " pairs"]
  same: Bool[np.ndarray, " pairs"]


def all_pairs(embeddings: Float[np.ndarray, "n dim"], identities: np.ndarray) -> Trials:
  """Every pair of two examples, with the cosine of their embeddings.

  Args:
    embeddings: unit-norm rows.
    identities: identity of each row.
  """
  first, second = np.triu_indices(len(embeddings), k=1)
  cosines = np.asarray(embeddings, np.float64) @ np.asarray(embeddings, np.float64).T
  return Trials(cosines[first, second], identities[first] == identities[second])


def verification(trials: Trials, seed: int = 0) -> Metrics:
  """Error rates of verification. A NaN score counts as the worst possible one.

  Args:
    trials: pairs of both kinds.
    seed: seed of the ten folds.
  Returns:
    eer: equal error rate, where as many pairs of two identities are accepted as pairs of one are refused. Between two
      thresholds it is interpolated.
    tar@far=0.01, tar@far=0.001: share of the pairs of one identity that are accepted at a threshold that accepts at
      most this share of the others. A rate that fewer than one of the other pairs amounts to is left out.
    balanced_accuracy: mean of the shares of both kinds that are told right, at the threshold that is best on nine
      folds of the pairs, measured on the tenth (Huang et al. 2007, LFW).
    auc: area under the ROC curve.
  """
  from sklearn.metrics import roc_auc_score, roc_curve

  same = trials.same
  beyond = 1 + np.abs(np.nan_to_num(trials.scores)).max()
  scores = np.where(np.isnan(trials.scores), np.where(same, -beyond, beyond), trials.scores)
  accepted, right, _ = roc_curve(same, scores, drop_intermediate=False)
  rates = {
    f"tar@far={rate:g}": float(right[accepted <= rate].max()) for rate in (0.01, 0.001) if rate * (~same).sum() >= 1
  }
  found = {"eer": equal_error_rate(accepted, 1 - right), **rates}
  return found | {"balanced_accuracy": _folded(scores, same, seed), "auc": float(roc_auc_score(same, scores))}


def equal_error_rate(accepted: Float[np.ndarray, " t"], refused: Float[np.ndarray, " t"]) -> float:
  """Error rate where the two are equal, linearly interpolated.

  Args:
    accepted: share of the pairs of two identities that are accepted, rising.
    refused: share of the pairs of one identity that are refused, falling.
  """
  after = int(np.argmax(accepted >= refused))
  if after == 0:
    return float(accepted[0])
  before = after - 1
  gap = refused[before] - accepted[before]
  step = gap / (gap + accepted[after] - refused[after])
  return float(accepted[before] + step * (accepted[after] - accepted[before]))


def _folded(scores: np.ndarray, same: np.ndarray, seed: int) -> float:
  """Balanced accuracy of ten folds, each at the best threshold of the others."""
  from sklearn.metrics import roc_curve

  folds, rng = np.empty(len(same), int), np.random.default_rng(seed)
  for kind in (same, ~same):  # both kinds are in every fold, if there are ten of them
    places = rng.permutation(np.flatnonzero(kind))
    folds[places] = np.arange(len(places)) % FOLDS
  found = []
  for fold in range(FOLDS):
    mine = folds == fold
    if not (same[mine].any() and (~same[mine]).any()):
      continue
    accepted, right, thresholds = roc_curve(same[~mine], scores[~mine])
    says = scores[mine] >= thresholds[np.argmax(right - accepted)]
    found.append((says[same[mine]].mean() + (~says[~same[mine]]).mean()) / 2)
  return float(np.mean(found))
