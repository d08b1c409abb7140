"""Scores of the classes that runs give to the examples of a split, and which of the examples they have seen."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from mmjax.data import make_source
from mmjax.errors import ConfigError
from mmjax.evaluate import batches, over_batches
from mmjax.evaluate.examples import Examples
from mmjax.evaluate.traits import entries, terms
from mmjax.models.combining import mean_of_probabilities
from mmjax.models.protocols import Classifies
from mmjax.objectives import ClassifyMembers
from mmjax.objectives.losses.resampling import sample_counts
from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class Predictions:
  """Scores of a classifier for some examples.

  Attributes:
    ids: names of the examples.
    labels: their classes.
    logits: scores of the classes.
    seen: True for examples that the classifier was trained on.
  """

  ids: tuple[str, ...]
  labels: Int[np.ndarray, " n"]
  logits: Float[np.ndarray, "n classes"]
  seen: Bool[np.ndarray, " n"]

  def take(self, places: Int[np.ndarray, " m"]) -> "Predictions":
    """The examples at some places."""
    ids = tuple(self.ids[place] for place in places)
    return Predictions(ids, self.labels[places], self.logits[places], self.seen[places])


def predictions(run: Run, split: str = "validation") -> Predictions:
  """Compute the scores of a classifier for a split of its data. Those of the split "train" are marked as seen.

  Args:
    run: a classifier.
    split: name of the split.
  """
  ids, labels, logits = _scores(run, split, _class_logits)
  return Predictions(ids, labels, logits, np.full(len(labels), split == "train"))


def out_of_sample(run: Run) -> Predictions:
  """Compute the scores for the training examples by the members of an ensemble that have not seen them.

  Args:
    run: an ensemble that was trained with ClassifyMembers and sampling "folds" (each example is left out by one member)
      or "bootstrap" (by some 37% of the members; out-of-bag, Breiman 1996). Their probabilities are averaged. An
      example that all members have seen is left out of the result.
  Raises: ConfigError: the run was trained otherwise.
  """
  term = next((term for term in run.experiment.objectives if isinstance(term, ClassifyMembers)), None)
  if term is None or term.sampling == "all":
    raise ConfigError(
      f"every member of {run.workdir} has seen all training examples: train with the objective classify_members and "
      "--objectives.0.sampling folds, or use examples of another split"
    )
  ids, labels, logits = _scores(run, "train", _member_logits)
  model: Any = run.experiment.model
  index, members = np.arange(len(labels), dtype=np.int32), len(model.models)
  counts = sample_counts(jax.numpy.asarray(index), members=members, sampling=term.sampling, seed=term.sampling_seed)
  unseen = np.asarray(counts).T == 0
  kept = np.flatnonzero(unseen.any(1))
  scores = [_mean(logits[place][unseen[place]]) for place in kept]
  return Predictions(tuple(ids[p] for p in kept), labels[kept], np.stack(scores), np.zeros(len(kept), bool))


def _scores(
  run: Run, split: str, ask: Callable[[Any, Any], Any]
) -> tuple[tuple[str, ...], Int[np.ndarray, " n"], np.ndarray]:
  """(names, classes, results of `ask`) of the examples of a split, in the order of the source."""
  term: Any = next(iter(terms(run.experiment, Classifies)), None)
  if term is None:
    raise ConfigError(f"the run in {run.workdir} has no objective that classifies")
  data = run.experiment.data
  source: Any = make_source(data, split)
  examples = Examples(split, split, source, tuple(getattr(source, "features", entries(data))))
  found = list(over_batches(run, ask, batches(run, examples), term.inputs, (term.label,)))
  labels = np.concatenate([kept[term.label] for kept, _ in found])
  read = getattr(source, "without_image", source.__getitem__)
  ids = tuple(read(place)["id"] for place in range(len(source)))
  return ids, labels, np.concatenate([np.asarray(scores) for _, scores in found])


def _class_logits(model: Any, batch: Any) -> Any:
  return model.class_logits(model.encode(batch))


def _member_logits(model: Any, batch: Any) -> Any:
  """Scores by member, [batch, members, classes]."""
  return jax.numpy.moveaxis(model.member_class_logits(model.encode(batch)), 0, 1)


def _mean(logits: Float[np.ndarray, "members classes"]) -> Float[np.ndarray, " classes"]:
  weights = jax.numpy.full(len(logits), 1 / len(logits), jax.numpy.float32)
  return np.asarray(mean_of_probabilities(jax.numpy.asarray(logits[:, None]), weights))[0]
