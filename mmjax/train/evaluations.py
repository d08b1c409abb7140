"""Evaluations during training: their steps, their results and the best of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.data import Tokenizer
from mmjax.errors import UserError
from mmjax.evaluate import check_ready, evaluate, flatten
from mmjax.evaluate.results import lower_is_better
from mmjax.models.adapters import ADAPTERS
from mmjax.run import Run
from mmjax.train.adapters import with_adapters
from mmjax.train.setup import Training
from mmjax.train.state import TrainState
from mmjax.train.writers import Writer, read_evaluations


@dataclasses.dataclass(frozen=True)
class Made:
  """Parts of a run that are made from its data.

  Attributes:
    workdir: folder of the run.
    tokenizer: tokenizer of its texts. None for a run without text.
    fitted: values that columns learned from the training data, by column name.
    image: transform of images in evaluation. None: that of the experiment's data settings.
  """

  workdir: Path
  tokenizer: Tokenizer | None
  fitted: Mapping[str, Any]
  image: Any = None


def as_run(training: Training, made: Made, state: TrainState) -> Run:
  """Make a Run from a training state."""
  params = state.params if state.ema is None or not training.experiment.evaluation.average else state.ema
  return Run(
    experiment=training.experiment,
    workdir=made.workdir,
    model=training.model,
    params=with_adapters(training.experiment, params),
    tokenizer=made.tokenizer,
    mesh=training.mesh,
    step=int(state.step),
    fitted=made.fitted,
    image=made.image,
    adapters=params.get(ADAPTERS),
  )


def check_begun(training: Training, made: Made, checks: Sequence[Callable[[Run], None]], step: int) -> None:
  """Call checks with the run before its first step. A run that evaluates while it trains is always checked.

  Args:
    training: the run.
    made: its workdir, tokenizer and columns.
    checks: functions that raise an error if something is not as the run needs it.
    step: step that the run goes on from.
  """
  fields = made.workdir, training.model, training.shapes.params, made.tokenizer, training.mesh, step
  run = Run(training.experiment, *fields, made.fitted, made.image)
  due = [check_ready] if training.experiment.evaluation.every and check_ready not in checks else []
  for check in [*due, *checks]:
    check(run)


class Evaluations:
  """Evaluates a run during training. Each step is evaluated once, also if the run is restarted.

  Args:
    training: the run.
    made: its workdir, tokenizer and columns.
    score: function that is called with the step and the score of every evaluation, also of those before a restart. A
      larger score is better.
    up_to: step from which the run resumes. Later evaluations in metrics.jsonl are ignored.
  """

  def __init__(self, training: Training, made: Made, *, score: Callable[[int, float], None], up_to: int):
    self._training, self._made, self._score = training, made, score
    self._config = training.experiment.evaluation
    self._best = self._config.best_metric or ""  # mmjax.train.loop.with_best_metric names it
    self._done = read_evaluations(made.workdir, up_to)
    for step, numbers in self._done.items():
      if self._best in numbers:
        self._tell(step, numbers)

  def due(self, step: int) -> bool:
    """True if the run evaluates after this step and has not done so yet."""
    return self._config.after(step) and step not in self._done

  @property
  def best(self) -> int | None:
    """Step of the first evaluation with the best score. None: there is none yet."""
    scores = {step: self._score_of(numbers) for step, numbers in self._done.items() if self._best in numbers}
    return max(scores, key=lambda step: (scores[step], -step)) if scores else None

  @property
  def exhausted(self) -> bool:
    """True if evaluation.patience evaluations in a row were no better than the best."""
    if not self._config.patience:  # asked before every step
      return False
    best = self.best
    return best is not None and sum(step > best for step in self._done) >= self._config.patience

  def rewind(self, step: int) -> None:
    """Forget the evaluations after a step."""
    self._done = {done: numbers for done, numbers in self._done.items() if done <= step}

  def measure(self, state: TrainState) -> Mapping[str, float]:
    """Compute the metrics of a state. Raises UserError if evaluation.best_metric is not one of them."""
    numbers = flatten(evaluate(as_run(self._training, self._made, state)))
    if self._best not in numbers:
      found = ", ".join(numbers) or "nothing"
      raise UserError(
        f"the evaluators have not measured evaluation.best_metric={self._best!r}, but {found}: choose another"
      )
    return numbers

  def record(self, step: int, numbers: Mapping[str, float], writer: Writer) -> str:
    """Log an evaluation and set its score. Returns a line for the console."""
    writer.write_evaluation(step, numbers)
    self._done[step] = dict(numbers)
    self._tell(step, numbers)
    return f"step {step}  {self._best} {numbers[self._best]:.3f}"

  def _tell(self, step: int, numbers: Mapping[str, float]) -> None:
    self._score(step, self._score_of(numbers))

  def _score_of(self, numbers: Mapping[str, float]) -> float:
    return -numbers[self._best] if lower_is_better(self._best) else numbers[self._best]
