"""The run that kill_campaign.py kills, and how it says, until the very end, what it is at.

`python scripts/benchmarks/killed_run.py WORKDIR` trains and measures a small run on emoji (a worker process, two
microbatches, moving average, evaluations), as the command line does. What it is at stands on a page of memory that
outlives it, a byte for the loop and one for the thread that feeds it; kill_campaign.py reads them.
"""

import contextlib
import dataclasses
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mmjax.cli import started
from mmjax.data import DataConfig, Emoji, TokenizerConfig
from mmjax.data.loader import Loader
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.evaluate import measure
from mmjax.evaluators import EvaluationConfig
from mmjax.experiment import Experiment, RunConfig
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.parallel.mesh import ParallelConfig
from mmjax.settings import OptimizerConfig
from mmjax.train import loop
from mmjax.train.evaluations import Evaluations
from mmjax.train.session import Session
from mmjax.train.setup import prepare

PHASES = {"s": "step", "e": "evaluation", "c": "checkpoint", ".": "between"}
PARTIAL = "*.orbax-checkpoint-tmp"
IDLE = b".."
_LOOP, _FEED = slice(0, 1), slice(1, 2)


def experiment(workdir: Path) -> Experiment:
  """The run: 12 steps of 16 from 40 emoji, so that epochs end within it; saved every 3, evaluated every 4 steps."""
  return Experiment(
    data=DataConfig(source=Emoji(limit=40), workers=1, tokenizer=TokenizerConfig(vocab_size=384, max_length=8)),
    model=TwoTowerConfig(
      image=ViTConfig(image_size=16, patch_size=8, width=16, depth=1, num_heads=2, pool="mean", patch_dropout=0.25),
      text=TextConfig(vocab_size=64, max_length=8, width=16, depth=1, num_heads=2, eos_id=63),
      embed_dim=8,
    ),
    optimizer=OptimizerConfig(warmup_steps=2, ema_decay=0.9),
    parallel=ParallelConfig(microbatches=2),
    evaluation=EvaluationConfig(every=4),
    run=RunConfig(workdir=workdir, steps=12, batch_size=16, save_every=3, log_every=1, tensorboard=False),
  )


def page_of(workdir: Path) -> Path:
  return workdir.with_suffix(".phase")


def log_of(workdir: Path) -> Path:
  return workdir.with_suffix(".log")


@dataclasses.dataclass(frozen=True)
class At:
  """Moment of a run: what it is at.

  Attributes:
    phase: of the loop: step, checkpoint (the part of a save that it waits for), evaluation or between.
    partial: whether a checkpoint is half written, which goes on while the loop does.
    starting: whether its data workers have been asked for and have not given a batch yet.
  """

  phase: str
  partial: bool
  starting: bool

  @property
  def kinds(self) -> frozenset[str]:
    """All that it is at, in the campaign's words; a run writes a checkpoint while it evaluates or takes a step."""
    found = {self.phase} | ({"checkpoint"} if self.partial else set()) | ({"worker start"} if self.starting else set())
    return frozenset(found if len(found) == 1 else found - {"between"})


def at(workdir: Path) -> At:
  """Moment that the run of a workdir is at, or was at when it died."""
  loop_at, feed_at = page_of(workdir).read_bytes().decode()
  return At(PHASES[loop_at], any((workdir / "checkpoints").glob(PARTIAL)), feed_at == "w")


@contextlib.contextmanager
def launched(workdir: Path, cache: Path) -> Iterator[subprocess.Popen]:
  """A run in a process group of its own, of which nothing is left afterwards."""
  page_of(workdir).write_bytes(IDLE)
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
  }
  with log_of(workdir).open("ab") as log:
    command = [sys.executable, __file__, str(workdir)]
    run = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
  try:
    yield run
  finally:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(run.pid, signal.SIGKILL)
    run.wait()


class Told:
  """Writes on the page while something is done: `told.during(function, where, letter)` is the function that does."""

  def __init__(self, workdir: Path):
    self._page = mmap.mmap(os.open(page_of(workdir), os.O_RDWR), len(IDLE))

  def during(self, function: Callable, where: slice, letter: bytes) -> Callable:
    def told(*args: Any, **options: Any) -> Any:
      before, self._page[where] = self._page[where], letter
      try:
        return function(*args, **options)
      finally:
        self._page[where] = before

    return told

  def from_start_to_batch(self, start: Callable, following: Callable) -> tuple[Callable, Callable]:
    """The loader's two methods: workers start when `start` is called, and have started with the next batch."""

    def start_told(*args: Any) -> Any:
      self._page[_FEED] = b"w"
      return start(*args)

    def following_told(*args: Any) -> Any:
      batch = following(*args)
      self._page[_FEED] = b"."
      return batch

    return start_told, following_told


def main(workdir: Path) -> int:
  told = Told(workdir)

  def prepare_told(*args: Any, **options: Any) -> Any:
    training = prepare(*args, **options)
    step = dataclasses.replace(training.step, jitted=told.during(training.step.jitted, _LOOP, b"s"))
    return dataclasses.replace(training, step=step)

  Evaluations.measure = told.during(Evaluations.measure, _LOOP, b"e")  # type: ignore[method-assign]
  Session._save = told.during(Session._save, _LOOP, b"c")  # type: ignore[method-assign]
  Loader._start, Loader._next = told.from_start_to_batch(Loader._start, Loader._next)  # type: ignore[method-assign]
  loop.prepare = prepare_told
  with started():
    outcome = loop.train(experiment(workdir))
    if not outcome.exit_status:
      measure(outcome.run)
  return outcome.exit_status


if __name__ == "__main__":
  sys.exit(main(Path(sys.argv[1])))
