"""Warnings about a run that does not learn or is slow. Each one gives the observation and a remedy."""

import os
from collections.abc import Callable, Mapping

import numpy as np

from mmjax.types import Batch


class Watch:
  """Observes the metrics of a run, and warns. The same warning appears at most once in `silence` steps.

  Args:
    say: function that is called with a warning.
    patience: number of steps with the loss at chance before a warning.
    waits: number of log lines in a row with more than half of the time spent waiting for data, before a warning.
    silence: number of steps before the same warning appears again.
    workers: data.workers of the run, for the text of the warning.
  """

  def __init__(
    self, say: Callable[[str], None], *, patience: int = 500, waits: int = 5, silence: int = 2000, workers: int = 0
  ):
    self._say, self._patience, self._waits, self._silence = say, patience, waits, silence
    self._workers = workers
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

  def captions(self, step: int, batch: Batch) -> None:
    """Check the texts of a batch (rows of this process). Warns if most of them occur more than once."""
    if "text" not in batch or step < self._said.get("captions", -self._silence) + self._silence:
      return
    rows = np.concatenate(
      [np.asarray(shard.data) for shard in batch["text"].addressable_shards if not shard.replica_id]
    )
    repeated = 1 - len(np.unique(rows, axis=0)) / len(rows)
    if repeated > 0.5:
      self._once(
        "captions",
        step,
        f"{100 * repeated:.0f}% of the captions in a batch repeat another one: most negatives are false. Use more "
        "varied captions, mask_same_concept (where duplicates share a concept), the loss unicl, or a smaller batch",
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
      self._say(f"warning: {message}")
