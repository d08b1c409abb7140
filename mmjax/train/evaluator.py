"""The evaluations of a run while it trains: when they are due, what they found, and which was best."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmjax.data import Tokenizer
from mmjax.errors import UserError
from mmjax.evaluate import evaluate, flatten
from mmjax.run import Run
from mmjax.train.metrics import Writer, read_evaluations
from mmjax.train.setup import Training
from mmjax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Made:
  """What a run is made of beside its parameters.

  Attributes:
    workdir: its folder.
    tokenizer: of its texts; None without text.
    fitted: what its columns have learnt of the data, by name.
  """

  workdir: Path
  tokenizer: Tokenizer | None
  fitted: Mapping[str, Any]


def as_run(training: Training, made: Made, state: TrainState) -> Run:
  """The state, ready for use."""
  return Run(
    experiment=training.experiment,
    workdir=made.workdir,
    model=training.model,
    params=state.evaluation_params,
    tokenizer=made.tokenizer,
    mesh=training.mesh,
    step=int(state.step),
    fitted=made.fitted,
  )


class Evaluator:
  """Evaluates at the steps where that is due, each once, over all restarts of the run.

  Args:
    score: is told the step and evaluation.best_metric of every evaluation, also of those before a restart.
    up_to: the step that the run goes on from; what metrics.jsonl says of later ones is not known.
  """

  def __init__(self, training: Training, made: Made, *, score: Callable[[int, float], None], up_to: int):
    self._training, self._made, self._score = training, made, score
    self._config = training.experiment.evaluation
    self._done = read_evaluations(made.workdir, up_to)
    for step, numbers in self._done.items():
      if self._config.best_metric in numbers:
        score(step, numbers[self._config.best_metric])

  def due(self, step: int) -> bool:
    """Whether to evaluate after a step: it is one of those, and has not been done yet."""
    return self._config.after(step) and step not in self._done

  def rewind(self, step: int) -> None:
    """Forgets the evaluations after a step."""
    self._done = {done: numbers for done, numbers in self._done.items() if done <= step}

  def measure(self, state: TrainState) -> Mapping[str, float]:
    """The metrics of a state. Raises UserError where evaluation.best_metric is not among them."""
    numbers = flatten(evaluate(as_run(self._training, self._made, state)))
    if self._config.best_metric not in numbers:
      raise UserError(
        f"evaluation.best_metric={self._config.best_metric!r} is not among the metrics: {', '.join(numbers)}"
      )
    return numbers

  def record(self, step: int, numbers: Mapping[str, float], writer: Writer) -> str:
    """Writes an evaluation down, and returns it as a line for people."""
    best = self._config.best_metric
    writer.write_evaluation(step, numbers)
    self._done[step] = dict(numbers)
    self._score(step, numbers[best])
    return f"step {step}  {best} {numbers[best]:.3f}"
