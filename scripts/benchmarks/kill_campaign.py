"""kill -9 at the worst moments: every run must end as the one that nobody killed, to the bit.

`python scripts/benchmarks/kill_campaign.py [--kills 25] [--seed 0] [--out DIR]`

A small run on emoji (worker process, two microbatches, moving average, evaluations) is started again and again in a
process group of its own, killed with all its workers, and started once more. Moments, in turn: while a step computes,
while a checkpoint is on its way to the disk, during an evaluation, when its worker process has just appeared, and at
random. What the run was doing when it died is told by a page of memory that outlives it, and by the half-written
checkpoint it leaves.

Compared with the uninterrupted run: every array of the last checkpoint's state, what is kept beside it (the data's
position), which checkpoints there are, metrics.jsonl (but for times), events.jsonl and results.json. Exit status 0: all
are identical.
"""

import argparse
import contextlib
import dataclasses
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from mmjax.cli import started
from mmjax.data import DataConfig, TokenizerConfig
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.evaluate import EvaluationConfig, measure
from mmjax.experiment import Experiment, RunConfig, read_experiment
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.parallel.mesh import ParallelConfig
from mmjax.train import loop
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.evaluator import Evaluator
from mmjax.train.optimizer import OptimizerConfig
from mmjax.train.session import Session
from mmjax.train.setup import prepare

VOLATILE = {"seconds", "examples_per_second", "input_wait", "input_wait_share"}
PHASES = {b"s": "step", b"e": "evaluation", b"c": "save", b".": "between"}
PARTIAL = "*.orbax-checkpoint-tmp"
TIMEOUT = 600.0


def experiment(workdir: Path) -> Experiment:
  """The run: 12 steps of 16 from 40 emoji, so that epochs end within it; saved every 3, evaluated every 4 steps."""
  return Experiment(
    data=DataConfig(limit=40, workers=1, tokenizer=TokenizerConfig(vocab_size=384, max_length=8)),
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


def child(workdir: Path) -> int:
  """What is killed: trains and measures, as the command line does, and says on a page of memory what it is at."""
  page = mmap.mmap(os.open(phase_file(workdir), os.O_RDWR), 1)

  def at(phase: bytes, function: Callable) -> Callable:
    def told(*args: Any, **options: Any) -> Any:
      before, page[:1] = page[:1], phase
      try:
        return function(*args, **options)
      finally:
        page[:1] = before

    return told

  def prepare_told(*args: Any, **options: Any) -> Any:
    training = prepare(*args, **options)
    return dataclasses.replace(training, step=at(b"s", training.step))

  Evaluator.measure = at(b"e", Evaluator.measure)  # type: ignore[method-assign]
  Session._save = at(b"c", Session._save)  # type: ignore[method-assign]
  loop.prepare = prepare_told
  with started():
    outcome = loop.train(experiment(workdir))
    if not outcome.exit_status:
      measure(outcome.run)
  return outcome.exit_status


def phase_file(workdir: Path) -> Path:
  return workdir.with_suffix(".phase")


@contextlib.contextmanager
def launched(workdir: Path, cache: Path) -> Iterator[subprocess.Popen]:
  """A run in a process group of its own, of which nothing is left afterwards."""
  phase_file(workdir).write_bytes(b".")
  environment = os.environ | {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(cache),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
  }
  command = [sys.executable, __file__, "--child", str(workdir)]
  with workdir.with_suffix(".log").open("ab") as log:
    run = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
  try:
    yield run
  finally:
    with contextlib.suppress(ProcessLookupError):
      os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def finish(workdir: Path, cache: Path) -> float:
  """Lets a run come to its end; returns the seconds that took."""
  began = time.monotonic()
  with launched(workdir, cache) as run:
    if run.wait(timeout=TIMEOUT):
      raise SystemExit(f"the run failed with status {run.returncode}; see {workdir.with_suffix('.log')}")
  return time.monotonic() - began


def phase(workdir: Path) -> str:
  return PHASES[phase_file(workdir).read_bytes()]


def has_workers(run: subprocess.Popen) -> bool:
  """Whether a process of the run's own exists: the one that prepares its data, or what forks it."""
  with contextlib.suppress(OSError):
    return any(task.read_text() for task in Path(f"/proc/{run.pid}/task").glob("*/children"))
  return False


def lines(workdir: Path) -> int:
  return sum(path.read_bytes().count(b"\n") for path in workdir.glob("metrics.jsonl"))


Moment = Callable[[subprocess.Popen, Path, random.Random], bool]


def moments(durations: list[float]) -> dict[str, Moment]:
  """Each says whether now is the time. `durations`: how many seconds runs took so far."""
  times: dict[int, float] = {}

  def in_step(run: subprocess.Popen, workdir: Path, chance: random.Random) -> bool:
    return phase(workdir) == "step" and lines(workdir) > 0 and chance.random() < 0.05

  def in_save(run: subprocess.Popen, workdir: Path, chance: random.Random) -> bool:
    return any((workdir / "checkpoints").glob(PARTIAL)) and chance.random() < 0.2

  def in_evaluation(run: subprocess.Popen, workdir: Path, chance: random.Random) -> bool:
    return phase(workdir) == "evaluation" and chance.random() < 0.05

  def at_fork(run: subprocess.Popen, workdir: Path, chance: random.Random) -> bool:
    return lines(workdir) == 0 and has_workers(run) and chance.random() < 0.2

  def at_random(run: subprocess.Popen, workdir: Path, chance: random.Random) -> bool:
    planned = times.setdefault(run.pid, time.monotonic() + chance.uniform(0, min(durations)))
    return time.monotonic() > planned

  return {
    "step": in_step,
    "checkpoint": in_save,
    "evaluation": in_evaluation,
    "worker start": at_fork,
    "random": at_random,
  }


@dataclasses.dataclass(frozen=True)
class Death:
  """How a run died: what was waited for, what it was at, what it left behind."""

  wanted: str
  phase: str
  partial: bool
  logged: int
  checkpoints: tuple[int, ...]

  @property
  def during(self) -> str:
    """What it was at, in the words of the campaign."""
    if self.partial:
      return "checkpoint"
    return self.wanted if self.wanted == "worker start" else self.phase


def kill(workdir: Path, cache: Path, wanted: str, moment: Moment, chance: random.Random) -> Death | None:
  """Starts a run and kills its whole group at that moment; None where it was over before."""
  with launched(workdir, cache) as run:
    deadline = time.monotonic() + TIMEOUT
    while not moment(run, workdir, chance):
      if run.poll() is not None:
        return None
      if time.monotonic() > deadline:
        raise SystemExit(f"no {wanted} in {TIMEOUT} s; see {workdir.with_suffix('.log')}")
      time.sleep(0.001)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
  folder = workdir / "checkpoints"
  steps = tuple(sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal()))
  return Death(wanted, phase(workdir), any(folder.glob(PARTIAL)), lines(workdir), steps)


def remains(workdir: Path) -> dict[str, Any]:
  """Everything that two runs are compared by."""
  training = prepare(read_experiment(workdir / "config.json"), devices=jax.devices()[:1])
  checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
  last = checkpoints.restore(training.shapes, training.shardings)
  checkpoints.close()
  leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(last.state))
  logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return {
    "state": {jax.tree_util.keystr(path): leaf for path, leaf in leaves},
    "data": last.data,
    "checkpoints": sorted(path.name for path in (workdir / "checkpoints").iterdir()),
    "metrics.jsonl": [{k: v for k, v in line.items() if k not in VOLATILE} for line in logged],
    "events.jsonl": (workdir / "events.jsonl").read_text(),
    "results.json": (workdir / "results.json").read_text().replace(str(workdir), "WORKDIR"),
  }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
  """The names of what is not identical."""
  wrong = [name for name in one if name != "state" and one[name] != other[name]]
  if one["state"].keys() != other["state"].keys():
    return [*wrong, "state"]
  return wrong + [
    f"state{k}" for k, leaf in one["state"].items() if not np.array_equal(leaf, other["state"][k], equal_nan=True)
  ]


def campaign(out: Path, kills: int, seed: int, console: Console) -> int:
  """Runs it, prints a line a kill and a table; returns the exit status."""
  shutil.rmtree(out, ignore_errors=True)
  out.mkdir(parents=True)
  cache, chance = out / "cache", random.Random(seed)
  durations = [finish(out / "whole", cache)]  # the first run compiles, and builds the data
  reference = remains(out / "whole")
  deaths: list[tuple[Death, list[str]]] = []
  kinds = moments(durations)
  while len(deaths) < kills:
    wanted = list(kinds)[len(deaths) % len(kinds)]
    workdir = out / f"kill{len(deaths)}"
    death = kill(workdir, cache, wanted, kinds[wanted], chance)
    if death is None:  # it got through: none of the kills
      shutil.rmtree(workdir, ignore_errors=True)
      continue
    durations.append(finish(workdir, cache))
    wrong = differences(reference, remains(workdir))
    deaths.append((death, wrong))
    console.print(
      f"{len(deaths)}/{kills}: {death}: {'DIFFERS in ' + ', '.join(wrong) if wrong else 'identical'}", highlight=False
    )
    shutil.rmtree(workdir)
  return summary(deaths, console)


def summary(deaths: list[tuple[Death, list[str]]], console: Console) -> int:
  table = Table("killed during", "kills", "identical afterwards")
  for during in sorted({death.during for death, _ in deaths}):
    wrong = [bad for death, bad in deaths if death.during == during]
    table.add_row(during, str(len(wrong)), str(sum(not bad for bad in wrong)))
  identical = sum(not wrong for _, wrong in deaths)
  table.add_section()
  table.add_row("all", str(len(deaths)), str(identical))
  console.print(table)
  missed = sorted({"step", "checkpoint", "evaluation", "worker start"} - {death.during for death, _ in deaths})
  console.print(f"{identical} of {len(deaths)} identical" + (f"; not met: {', '.join(missed)}" if missed else ""))
  return 0 if identical == len(deaths) else 1


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--kills", type=int, default=25)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", type=Path, default=Path("build/kill_campaign"))
  parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.child:
    return child(options.child)
  return campaign(options.out.absolute(), options.kills, options.seed, Console(width=150))


if __name__ == "__main__":
  sys.exit(main())
