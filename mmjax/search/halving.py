"""Asynchronous successive halving: which trial trains next, and up to which step.

Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2 (ASHA). All trials train to the
first rung, a small number of steps. Of those that have reached a rung, the best 1/reduction go on to the next one. No
trial waits for others: whenever a process is free, the best trial that may go on does, and if none may, a new one
begins.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Trial:
  """One trial of a search.

  Attributes:
    number: its number, from 0.
    values: {path of a field: value}.
    scores: {step: score after it}, of all rungs that it has reached. None: its loss was no finite number.
    note: what went wrong, if something did.
  """

  number: int
  values: Mapping[str, Any]
  scores: Mapping[int, float | None] = dataclasses.field(default_factory=dict)
  note: str = ""

  @property
  def steps(self) -> int:
    """The last rung that it has reached, 0 if it has reached none."""
    return max(self.scores, default=0)

  @property
  def score(self) -> float | None:
    """The score at its last rung."""
    return self.scores[self.steps] if self.scores else None


def rungs(steps: int, count: int, reduction: int) -> tuple[int, ...]:
  """Steps at which trials are compared: `steps`, and fewer by a factor of `reduction` each, ascending.

  Raises: ValueError: the first rung would have no step.
  """
  found = tuple(steps // reduction**power for power in reversed(range(count)))
  if found[0] < 1:
    raise ValueError(
      f"{count} rungs with a reduction of {reduction} need at least {reduction ** (count - 1)} steps, not {steps}"
    )
  return found


def ranked(trials: Sequence[Trial], step: int, *, maximize: bool) -> list[Trial]:
  """The trials that have a score after `step`, the best first, failed ones last. Of equal ones, the older is first."""
  sign = -1 if maximize else 1

  def key(trial: Trial) -> tuple[float, int]:
    score = trial.scores[step]
    return (float("inf") if score is None else sign * score, trial.number)

  return sorted((trial for trial in trials if step in trial.scores), key=key)


def next_job(
  trials: Sequence[Trial],
  at: Sequence[int],
  reduction: int,
  *,
  maximize: bool,
  is_free: Callable[[Trial], bool] = lambda trial: True,
) -> tuple[Trial, int] | None:
  """The trial that trains next, and the step up to which it does. None: a new one begins, if more are wanted.

  Args:
    trials: all trials that have begun.
    at: the steps of the rungs, ascending.
    reduction: one trial in `reduction` goes on.
    maximize: True if a higher score is better.
    is_free: False for a trial that another process trains.
  """
  for trial in trials:
    if not trial.scores and is_free(trial):  # its process died
      return trial, at[0]
  for step, following in reversed(list(itertools.pairwise(at))):
    best = ranked(trials, step, maximize=maximize)
    for trial in best[: len(best) // reduction]:
      if following not in trial.scores and trial.scores[step] is not None and is_free(trial):
        return trial, following
  return None
