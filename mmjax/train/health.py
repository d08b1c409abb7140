"""Warnings about a run that does not learn or is slow. Each one gives the observation and a remedy."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.experiment import Experiment
from mmjax.objectives import MomentumContrastive
from mmjax.objectives.terms.base import Term
from mmjax.types import Batch

NEARLY_ZERO = 0.01
"""Share of the chance level below which a loss is nearly 0."""


class HealthWatch:
  """Observes the metrics of a run, and warns. The same warning appears at most once in `silence` steps.

  Args:
    say: function of (kind, step, message) that is called with a warning.
    patience: number of steps with the loss at chance before a warning.
    waits: number of log lines in a row with more than half of the time spent waiting for data, before a warning.
    silence: number of steps before the same warning appears again.
    workers: data.workers of the run, for the text of the warning.
    early: last step at which a loss of nearly 0 is worth a warning.
  """

  def __init__(
    self,
    say: Callable[[str, int, str], None],
    *,
    patience: int = 500,
    waits: int = 5,
    silence: int = 2000,
    workers: int = 0,
    early: int = 100,
  ):
    self._say, self._patience, self._waits, self._silence = say, patience, waits, silence
    self._workers, self._early = workers, early
    self._said: dict[str, int] = {}
    self._at_chance_since: int | None = None
    self._waited = 0

  def numbers(self, step: int, numbers: Mapping[str, float]) -> None:
    """Check the metrics of a log line. Warns if the loss stays at chance, or if steps wait for data."""
    self._loss(step, numbers["loss"], numbers.get("chance", 0.0))
    share = numbers["input_wait_share"]
    self._waited = self._waited + 1 if share > 0.5 else 0
    if self._waited >= self._waits:
      self._once(
        "input",
        step,
        f"the step waits for data {100 * share:.0f}% of the time. More --data.workers (now {self._workers}; this "
        f"machine has {os.cpu_count()} cores), a larger --data.cache-mb or smaller images help",
      )

  def losses(self, step: int, numbers: Mapping[str, float], chances: Mapping[str, float | None]) -> None:
    """Check the losses of the terms. Warns if one is nearly 0 early.

    Args:
      step: number of the step.
      numbers: metrics of the step, with the losses of the terms.
      chances: chance level of each term, by the name of its loss; None: not known.
    """
    for name, chance in chances.items() if step <= self._early else ():
      if chance is not None and 0 <= numbers[name] < NEARLY_ZERO * chance:
        self._once(
          f"nearly 0: {name}",
          step,
          f"{name} is {numbers[name]:.2g} at step {step} already, and chance is {chance:.3f}: there is nothing to tell "
          "apart, or a text gives its image away. Look at the captions and at the number of concepts in a batch (a run "
          "from trained weights may ignore this)",
        )

  def due(self, step: int, log_every: int) -> bool:
    """True at the last early step if no log line is early, so that `losses` sees an early step in every run."""
    return log_every > self._early and step == self._early

  def batch(self, step: int, batch: Batch, terms: Sequence[Term]) -> None:
    """Check a batch (rows of this process). Warns if most negatives are false, or few are left.

    Args:
      step: number of the step.
      batch: arrays of the batch, or of the rows of one stream.
      terms: the terms that read it.
    """
    comparing = [term for term in terms if term.compares or term.spares_duplicates]
    if comparing and "concept" in batch:
      concepts = _rows(batch["concept"])
      self._concepts(step, concepts, comparing)
      reading = [term for term in comparing if "text" in term.needs]
      if reading and "text" in batch:
        self._captions(step, _rows(batch["text"]), concepts, all(term.spares_duplicates for term in reading))

  def _concepts(self, step: int, concepts: np.ndarray, terms: Sequence[Term]) -> None:
    masked = any(getattr(term, "mask_same_concept", False) for term in terms)
    counts = np.unique(concepts, return_counts=True)[1]
    most = len(concepts) // 4 if masked else 1
    left = len(concepts) - float((counts**2).sum()) / len(concepts)
    few = len(counts) <= max(1, most) or (masked and left < len(concepts) / 2)
    if len(concepts) > 1 and few and any(term.spares_duplicates for term in terms):
      self._once(
        "concepts",
        step,
        f"a batch of {len(concepts)} has only {len(counts)} different concept(s): rows of the same concept are no "
        f"negatives of each other, so that a row has {left:.0f} negatives on average. Images with the same set of "
        "captions are one concept: use captions that differ, or mask_same_concept False",
      )

  def _captions(self, step: int, texts: np.ndarray, concepts: np.ndarray, spared: bool) -> None:
    """Warn if many negatives are false. `spared`: the terms handle the texts of one concept.

    One text of half of the rows makes a quarter of all pairs false. Ten classes of equal size make a tenth.
    """
    _, text = np.unique(texts, axis=0, return_inverse=True)
    of = np.unique(np.stack([text.ravel(), concepts]), axis=1)[0]  # texts, once for each of their concepts
    repeated = np.mean(np.bincount(of)[text.ravel()] > 1) if spared else 1 - len(np.unique(text)) / len(texts)
    counts = np.bincount(text.ravel())
    pairs = float((counts * (counts - 1)).sum()) / max(1, len(texts) * (len(texts) - 1))
    many = repeated > 0.25 if spared else pairs > 0.15
    if repeated > 0.5 or (many and len(texts) >= 16):
      which = "are also those of images of other concepts" if spared else "repeat another one"
      remedy = "" if spared else "mask_same_concept (where duplicates share a concept), the loss unicl, "
      self._once(
        "captions",
        step,
        f"{100 * repeated:.0f}% of the captions in a batch {which}, and are false negatives. Use more varied "
        f"captions, {remedy}or a smaller batch",
      )

  def _loss(self, step: int, loss: float, chance: float) -> None:
    if chance <= 0 or abs(loss - chance) > 0.02 * chance:
      self._at_chance_since = None
      return
    self._at_chance_since = step if self._at_chance_since is None else self._at_chance_since
    if step - self._at_chance_since >= self._patience:
      self._once(
        "chance",
        step,
        f"the loss has been at chance ({chance:.3f}) since step {self._at_chance_since}: no pair is told apart. "
        "Check that captions belong to their images and that neither tower is frozen by optimizer.frozen or a rule; "
        "then try --optimizer.learning-rate a third or three times as high",
      )

  def _once(self, kind: str, step: int, message: str) -> None:
    if step >= self._said.get(kind, -self._silence) + self._silence:
      self._said[kind] = step
      self._say(kind, step, message)


def single_rows(experiment: Experiment) -> Iterator[str]:
  """Warnings of terms that compare the rows of a batch, where it has one row only."""
  for name, each in experiment.by_stream().items():
    terms = [term for term in each.objectives if term.compares and not isinstance(term, MomentumContrastive)]
    if each.run.batch_size == 1 and terms:
      where = f"the rows of stream {name}" if name else "the batch"
      yield (
        f"{where} is 1: {terms[0].name} compares the rows of a batch with each other, so that nothing is learned. Set "
        "--run.batch-size to 2 at least"
      )


def _rows(array: Any) -> np.ndarray:
  """The rows of this process."""
  return np.concatenate([np.asarray(shard.data) for shard in array.addressable_shards if not shard.replica_id])
