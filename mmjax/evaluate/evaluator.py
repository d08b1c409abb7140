"""The base of all evaluators, and the work that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mmjax.errors import ConfigError, did_you_mean
from mmjax.evaluate.results import MEAN_RECALL, Result
from mmjax.kinds import Kind

if TYPE_CHECKING:  # the configuration of an experiment holds evaluators
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run

Value = TypeVar("Value")


class Shared:
  """Work that the evaluators of one evaluation share, such as embeddings. Each piece is done when first asked for."""

  def __init__(self) -> None:
    self._kept: dict[Hashable, Any] = {}

  def once(self, key: Hashable, compute: Callable[[], Value]) -> Value:
    """The result of `compute`. Evaluators that ask under the same key share one result."""
    if key not in self._kept:
      self._kept[key] = compute()
    return self._kept[key]


@dataclasses.dataclass(frozen=True)
class Evaluator(Kind):
  """Measures a run, and draws sections of its report.

  A run takes the evaluators of its configuration (evaluation.evaluators) that apply to it, in their order. A script
  lists its own there, beside those of `built_in`, and passes the class to `main(EXPERIMENT, kinds=(Mine,))`.

  Example:
    >>> import dataclasses
    >>> from mmjax.evaluators import EvaluationConfig, Evaluator, built_in
    >>> @dataclasses.dataclass(frozen=True)
    ... class Parameters(Evaluator):
    ...   def metrics(self, experiment):
    ...     return ["model/scale"]
    >>> list(EvaluationConfig(evaluators={**built_in(), "size": Parameters()}).evaluators)[-1]
    'size'
  """

  def applies(self, experiment: Experiment) -> bool:
    """True if a run of this experiment is measured. Decided by the experiment alone."""
    return True

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    """The names "dataset/metric" of everything `run` will measure but controls, the most important one first.

    The experiment is that of a run, whose model fits its tokenizer. evaluation.best_metric is one of these names.
    `lower_is_better` tells by its name whether a metric is to fall.
    """
    return ()

  def check(self, run: Run, shared: Shared) -> None:
    """Open and check what `run` and `sections` will need, such as the validation split. Called before the first step.

    Args:
      run: the run before its first step. Its parameters are shapes.
      shared: work that the evaluators share.
    Raises: DataError, UserError: something is missing or wrong. The message names it, and the remedy.
    """

  def run(self, run: Run, shared: Shared) -> list[Result]:
    """The results of a run. `make_result` makes one.

    Raises:
      mmjax.data.DataError: the data cannot be read; the message names the record.
    """
    return []

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    """Sections of the report besides the tables of results."""
    return []


def applying(experiment: Experiment) -> list[Evaluator]:
  """The evaluators of an experiment that apply to it, in order."""
  return [each for each in experiment.evaluation.evaluators.values() if each.applies(experiment)]


def in_stream(stream: str, name: str) -> str:
  """Name of a data set or metric of a stream: STREAM_NAME, or NAME for the data.source of the run."""
  return f"{stream}_{name}" if stream else name


def measured(experiment: Experiment) -> list[str]:
  """The names of all metrics that a run of this experiment measures, the most important one first."""
  names = [
    in_stream(stream, name)
    for stream, each in experiment.by_stream().items()
    for evaluator in applying(each)
    for name in evaluator.metrics(each)
  ]
  mean = [MEAN_RECALL] if any(name.endswith("recall@1") for name in names) else []
  return list(dict.fromkeys([*names, *mean]))


def best_metric(experiment: Experiment) -> str:
  """The metric whose best checkpoint is kept: evaluation.best_metric, or the most important one that is measured.

  Raises: ConfigError where the run does not measure it, or measures nothing.
  """
  names, wanted = measured(experiment), experiment.evaluation.best_metric
  if not names:
    known = ", ".join(experiment.evaluation.evaluators)
    raise ConfigError(
      f"no evaluator applies to this run, so there is nothing to measure every {experiment.evaluation.every} steps "
      f"(evaluators: {known}): leave evaluation.every at 0, or add an evaluator of your own with kinds=(...)"
    )
  if wanted is None or wanted in names:
    return names[0] if wanted is None else wanted
  hint = did_you_mean(wanted, names, cutoff=0.0)
  raise ConfigError(f"evaluation.best_metric={wanted!r} is not among the metrics: {', '.join(names)}.{hint}")
