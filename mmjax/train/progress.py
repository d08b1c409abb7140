"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TextColumn,
  TimeElapsedColumn,
  TimeRemainingColumn,
)


def summary(numbers: Mapping[str, float]) -> str:
  """Format the most important metrics: loss with its chance level, logit scale, gradient norm, speed, input wait."""
  chance = f" (chance {numbers['chance']:.2f})" if "chance" in numbers else ""
  scale = f"  scale {numbers['logit_scale']:.1f}" if "logit_scale" in numbers else ""
  return (
    f"loss {numbers['loss']:.3f}{chance}{scale}  "
    f"grad {numbers['grad_norm']:.2f}  {numbers['examples_per_second']:.0f} samples/s  "
    f"input wait {100 * numbers['input_wait_share']:.0f}%"
  )


class TrainingProgress:
  """Context that shows the progress of training. Call `advance` after every step, and `report` with new metrics.

  Args:
    steps: number of steps of the run.
    start: step from which it resumes.
    quiet: show nothing.
  """

  def __init__(self, steps: int, *, start: int, quiet: bool = False):
    self._console = Console(quiet=quiet)
    self._steps, self._start, self._began = steps, start, time.monotonic()
    self._bar: Progress | None = None
    if self._console.is_terminal:
      columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[numbers]}"),
      )
      self._bar = Progress(*columns, console=self._console)
      self._task = self._bar.add_task("training", total=steps, completed=start, numbers="compiling")

  def __enter__(self) -> "TrainingProgress":
    if self._bar:
      self._bar.start()
    return self

  def __exit__(
    self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
  ) -> None:
    if self._bar:
      self._bar.stop()

  def advance(self, step: int) -> None:
    if self._bar:
      self._bar.update(self._task, completed=step)

  def report(self, step: int, numbers: Mapping[str, float]) -> None:
    if self._bar:
      self._bar.update(self._task, numbers=summary(numbers))
    else:
      self.say(f"step {step}/{self._steps}  {summary(numbers)}  ETA {self._eta(step)}")

  def say(self, message: str) -> None:
    self._console.print(message, highlight=False, markup=False, soft_wrap=True)

  def _eta(self, step: int) -> str:
    done = max(step - self._start, 1)
    left = int((time.monotonic() - self._began) / done * (self._steps - step))
    return f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
