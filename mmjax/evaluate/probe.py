"""Probes: how much the features of a frozen model say about classes."""

import functools
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.errors import DataError
from mmjax.evaluate.results import Metrics

STEPS_PER_DECADE = 8
DECADES = (-6, 6)
_COARSE = 16
_HELD_OUT = 5  # one example of so many chooses the strength


class Features(NamedTuple):
  """Features of examples, and their classes.

  Attributes:
    rows: one vector per example.
    labels: numbers of the classes.
  """

  rows: Float[np.ndarray, "n dim"]
  labels: Int[np.ndarray, " n"]

  def take(self, places: Int[np.ndarray, " m"]) -> "Features":
    """The examples at some places."""
    return Features(self.rows[places], self.labels[places])


class LinearProbe(NamedTuple):
  """A linear classifier.

  Attributes:
    kernel, bias: scores of the classes are rows @ kernel + bias. Their softmax is the probability.
    classes: numbers of the classes, in the order of the scores.
  """

  kernel: Float[np.ndarray, "dim classes"]
  bias: Float[np.ndarray, " classes"]
  classes: Int[np.ndarray, " classes"]

  def scores(self, rows: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "n classes"]:
    """Scores of the classes."""
    return rows @ self.kernel + self.bias


def fit_linear(train: Features, strength: float, *, tolerance: float = 1e-4) -> LinearProbe:
  """Fit multinomial logistic regression by L-BFGS, in the precision of the features.

  Args:
    train: the examples to learn from. Features are standardised by their mean and deviation.
    strength: weight of the L2 penalty: the loss is sum(cross-entropy) + strength / 2 * |weights|^2, with the weights of
      the standardised features.
    tolerance: largest gradient of the solution. 1e-4 finds the same classes as 1e-10, much sooner.
  """
  from sklearn.linear_model import LogisticRegression
  from sklearn.preprocessing import StandardScaler

  scaler = StandardScaler().fit(train.rows)
  rows = scaler.transform(train.rows)
  model = LogisticRegression(C=1 / strength, tol=tolerance, max_iter=1000).fit(rows, train.labels)
  coefficients, intercept = model.coef_.T, model.intercept_
  if len(model.classes_) == 2:  # scikit-learn has one score then, the difference
    coefficients, intercept = np.c_[-coefficients / 2, coefficients / 2], np.r_[-intercept / 2, intercept / 2]
  kernel = coefficients / scaler.scale_[:, None]
  return LinearProbe(kernel, intercept - scaler.mean_ @ kernel, model.classes_)


def linear_probe(
  train: Features, test: Features, strength: float, *, tolerance: float = 1e-4
) -> Float[np.ndarray, "n classes"]:
  """Scores of the linear classifier of `fit_linear`, for the classes of `train` in order.

  Args:
    train: the examples to learn from.
    test: the examples to score.
    strength, tolerance: as for `fit_linear`.
  """
  return fit_linear(train, strength, tolerance=tolerance).scores(test.rows)


def accuracy(scores: Float[np.ndarray, "n classes"], classes: Int[np.ndarray, " c"], test: Features) -> Metrics:
  """acc1 and mean_per_class_recall of the likeliest class.

  Args:
    scores: scores of the classes.
    classes: numbers of these classes.
    test: the scored examples. A class that has no score counts as wrong.
  """
  right = classes[scores.argmax(axis=1)] == test.labels
  recalls = [right[test.labels == label].mean() for label in np.unique(test.labels)]
  return {"acc1": float(right.mean()), "mean_per_class_recall": float(np.mean(recalls))}


def choose_strength(train: Features, seed: int = 0) -> float:
  """Strength of the L2 penalty that gives the best accuracy on a held-out fifth of the training examples.

  The search is CLIP's (Radford et al. 2021, appendix A.3): 8 steps per decade from 1e-6 to 1e6, from coarse to fine
  around the best. Each class keeps at least one example to learn from.
  """
  held_out = np.zeros(len(train.labels), bool)
  for places in _by_class(train.labels, seed):
    held_out[places[: len(places) // _HELD_OUT]] = True
  if not held_out.any():
    return 1.0
  fit, check = train.take(np.flatnonzero(~held_out)), train.take(np.flatnonzero(held_out))
  classes = np.unique(fit.labels)
  score = lambda strength: accuracy(linear_probe(fit, check, strength), classes, check)["acc1"]
  return best_strength(score)


def best_strength(score: Callable[[float], float]) -> float:
  """Strength with the best score, searched from coarse to fine. Of equal ones, the nearest to 1."""
  low, high = DECADES
  last = (high - low) * STEPS_PER_DECADE
  value = lambda place: 10.0 ** (low + place / STEPS_PER_DECADE)
  scored = functools.cache(lambda place: score(value(place)))
  step, places = _COARSE, list(range(0, last + 1, _COARSE))
  while True:
    best = max(places, key=lambda place: (scored(place), -abs(place - last // 2)))
    if step == 1:
      return value(best)
    step //= 2
    places = [place for place in (best - step, best, best + step) if 0 <= place <= last]


def nearest_neighbours(
  train: Features, test: Features, *, k: int = 20, temperature: float = 0.07
) -> Float[np.ndarray, "n classes"]:
  """Scores of a weighted vote of the k nearest training examples, for the classes of `train` in order.

  A neighbour votes with exp(cosine / temperature) (Wu et al. 2018, section 3.4; Caron et al. 2021, DINO).

  Args:
    train: the examples that vote.
    test: the examples to score.
    k: number of neighbours.
    temperature: of the votes.
  """
  unit = lambda rows: rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
  classes, numbers = np.unique(train.labels, return_inverse=True)
  votes, gallery, k = np.eye(len(classes), dtype=np.float32)[numbers], unit(train.rows), min(k, len(train.labels))
  scores = []
  for start in range(0, len(test.rows), 1024):
    cosines = unit(test.rows[start : start + 1024]) @ gallery.T
    nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    weights = np.exp((np.take_along_axis(cosines, nearest, axis=1) - 1) / temperature)
    scores.append((weights[..., None] * votes[nearest]).sum(axis=1))
  return np.concatenate(scores)


def few_shots(train: Features, shots: int, seed: int) -> Features:
  """`shots` examples of every class, drawn at random. A class with fewer examples gives all that it has."""
  chosen = [places[:shots] for places in _by_class(train.labels, seed)]
  return train.take(np.concatenate(chosen))


def _by_class(labels: Int[np.ndarray, " n"], seed: int) -> Iterator[Int[np.ndarray, " m"]]:
  """Places of the examples of each class, in random order."""
  rng = np.random.default_rng(seed)
  for label in np.unique(labels):
    yield rng.permutation(np.flatnonzero(labels == label))


def mean_and_deviation(found: Sequence[Metrics]) -> tuple[Metrics, Metrics]:
  """(mean, standard deviation) of the metrics of several draws."""
  values = {name: [metrics[name] for metrics in found] for name in found[0]}
  return {n: float(np.mean(v)) for n, v in values.items()}, {n: float(np.std(v)) for n, v in values.items()}


class Probed(NamedTuple):
  """Result of one probe.

  Attributes:
    name: short name, such as "4_shot".
    title: name for people, with the strength of the penalty or the deviation over the draws.
    metrics: acc1 and mean_per_class_recall, means over the draws.
    deviation: standard deviations of the metrics over the draws. 0 for a probe of all examples.
  """

  name: str
  title: str
  metrics: Metrics
  deviation: Metrics


def probes(
  train: Features, test: Features, *, neighbours: int = 20, shots: Sequence[int] = (1, 2, 4, 8, 16), draws: int = 3
) -> list[Probed]:
  """Probe features: a linear classifier, nearest neighbours, and linear classifiers of few examples per class.

  The strength of every linear classifier is chosen on a fifth of its training examples (`choose_strength`).

  Args:
    train: the examples to learn from.
    test: the examples to score.
    neighbours: number of neighbours that vote.
    shots: numbers of examples per class, the same for all classes.
    draws: number of random draws of these examples.
  """
  classes, strength = np.unique(train.labels), choose_strength(train)
  linear = accuracy(linear_probe(train, test, strength), classes, test)
  nearest = accuracy(nearest_neighbours(train, test, k=neighbours), classes, test)
  none = dict.fromkeys(linear, 0.0)
  found = [
    Probed("linear", f"linear probe, L2 strength {strength:.2g}", linear, none),
    Probed("neighbours", f"{neighbours} nearest neighbours", nearest, none),
  ]
  for each in shots:
    mean, deviation = mean_and_deviation([_few(train, test, each, seed) for seed in range(draws)])
    number = f"{each} example{'s' * (each != 1)} per class"
    title = f"{number}, acc1 ± {deviation['acc1']:.3f} over {draws} draws"
    found.append(Probed(f"{each}_shot", title, mean, deviation))
  return found


def _few(train: Features, test: Features, shots: int, seed: int) -> Metrics:
  some = few_shots(train, shots, seed)
  return accuracy(linear_probe(some, test, choose_strength(some, seed)), np.unique(some.labels), test)


def read_features(path: Path) -> tuple[Features, Features]:
  """Read (training features, test features) from a .npz file.

  Args:
    path: file with the arrays train_rows and test_rows [n, dim], and train_labels and test_labels [n] (whole numbers).
  Raises: DataError: the file cannot be read, or its arrays do not fit. The message names the array.
  """
  names = ("train_rows", "train_labels", "test_rows", "test_labels")
  try:
    with np.load(path, allow_pickle=False) as file:
      lacking = [name for name in names if name not in file.files]
      if lacking:
        raise DataError(f"{path} has no array {lacking[0]!r}; it has {', '.join(file.files)}. Features need {names}.")
      rows, labels, test_rows, test_labels = (file[name] for name in names)
  except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
    if isinstance(error, DataError):
      raise
    raise DataError(f"Cannot read the features in {path}: {error}. Write them with numpy.savez.") from error
  for split, found, numbers in (("train", rows, labels), ("test", test_rows, test_labels)):
    if found.ndim != 2 or found.dtype.kind != "f" or not np.isfinite(found).all():
      raise DataError(f"{path}: {split}_rows is {found.dtype} {list(found.shape)}, not finite floats [n, dim].")
    if numbers.dtype.kind not in "iu" or numbers.shape != found.shape[:1]:
      raise DataError(f"{path}: {split}_labels is {numbers.dtype} {list(numbers.shape)}, not a class for each row.")
  if rows.shape[1] != test_rows.shape[1]:
    raise DataError(f"{path}: train_rows has {rows.shape[1]} features and test_rows {test_rows.shape[1]}.")
  if len(np.unique(labels)) < 2:
    raise DataError(f"{path}: train_labels has one class only, and a probe tells two at least apart.")
  return Features(rows, labels), Features(test_rows, test_labels)
