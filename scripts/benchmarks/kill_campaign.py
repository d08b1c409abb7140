"""kill -9 at the worst moments: every run must end as the one that nobody killed, to the bit. SIGTERM, and its time.

`python scripts/benchmarks/kill_campaign.py [--kills 25] [--stops 10] [--seed 0] [--out DIR]`

The run of killed_run.py is started again and again in a process group of its own, killed with all its workers, and
started once more. Moments, in turn: while a checkpoint is on its way to the disk, while a step computes, during an
evaluation, while its data worker is being started, and at random. A checkpoint is written in the background, so a kill
during an evaluation mostly hits a save as well: it counts for both, in a table of what runs were at when they died.

Then runs are stopped by SIGTERM at the same moments: seconds until the process is gone, its status (143: saved, to be
queued again; -15: it had not begun to train, or had already saved its last step), and the end after a restart.

Compared with the uninterrupted run: every array of the last checkpoint's state, what is kept beside it (the data's
position), which checkpoints there are, metrics.jsonl (but for times), events.jsonl and results.json. Exit status 0: all
are identical, and each kind of moment was met.
"""

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from killed_run import At, at, launched, log_of

from mmjax.experiment import read_experiment
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.setup import prepare

VOLATILE = {"seconds", "examples_per_second", "input_wait", "input_wait_share"}
KINDS = ("checkpoint", "step", "evaluation", "worker start", "random")
TIMEOUT = 600.0


def finish(workdir: Path, cache: Path) -> float:
  """Lets a run come to its end; returns the seconds that took."""
  began = time.monotonic()
  with launched(workdir, cache) as run:
    if run.wait(timeout=TIMEOUT):
      raise SystemExit(f"the run failed with status {run.returncode}; see {log_of(workdir)}")
  return time.monotonic() - began


def has_worker(run: subprocess.Popen) -> bool:
  """True if the run has a process of its own: the one that prepares its data, as it is being made or later."""
  try:
    children = " ".join(task.read_text() for task in Path(f"/proc/{run.pid}/task").glob("*/children")).split()
    return any(b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children)
  except OSError:  # one of them has just gone
    return False


def lines(workdir: Path) -> int:
  return sum(path.read_bytes().count(b"\n") for path in workdir.glob("metrics.jsonl"))


def moment(kind: str, chance: random.Random, shortest: float) -> Callable[[subprocess.Popen, Path], bool]:
  """A moment to kill at: says, asked every millisecond, whether it is now. A run takes `shortest` seconds at least."""
  if kind == "random":
    planned = time.monotonic() + chance.uniform(0, shortest)
    return lambda run, workdir: time.monotonic() > planned
  first = 0 if kind == "worker start" else chance.randrange(9)  # lines of the log that come first, of up to 14
  likely = {"step": 0.05, "evaluation": 0.05, "checkpoint": 0.1, "worker start": 0.1}[kind]

  def now(run: subprocess.Popen, workdir: Path) -> bool:
    found = lines(workdir) >= first and kind in at(workdir).kinds
    return found and (kind != "worker start" or has_worker(run)) and chance.random() < likely

  return now


@dataclasses.dataclass(frozen=True)
class Death:
  """End of a run: what was waited for, what it was at, what it left behind, how long it took."""

  wanted: str
  at: At
  logged: int
  checkpoints: tuple[int, ...]
  status: int
  seconds: float


def end(workdir: Path, cache: Path, kind: str, number: int, chance: random.Random, shortest: float) -> Death | None:
  """Starts a run and sends it a signal at such a moment, all of its group if it is SIGKILL; None where it was over."""
  due = moment(kind, chance, shortest)
  with launched(workdir, cache) as run:
    deadline = time.monotonic() + TIMEOUT
    while not due(run, workdir):
      if run.poll() is not None:
        return None
      if time.monotonic() > deadline:
        raise SystemExit(f"no {kind} in {TIMEOUT} s; see {log_of(workdir)}")
      time.sleep(0.001)
    was, told = at(workdir), time.monotonic()
    if number == signal.SIGKILL:
      os.killpg(run.pid, number)
    else:
      run.send_signal(number)  # as schedulers do
    run.wait(timeout=TIMEOUT)
    seconds = round(time.monotonic() - told, 2)
  steps = tuple(sorted(int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()))
  found = at(workdir) if number == signal.SIGKILL else was
  return Death(kind, found, lines(workdir), steps, run.returncode, seconds)


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


Ended = tuple[Death, list[str]]
"""A death, and what was not identical after a restart."""


class Campaign:
  """The uninterrupted run, and any number of others that are ended and started again."""

  def __init__(self, out: Path, seed: int, console: Console):
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    self._out, self._cache, self._console, self._chance = out, out / "cache", console, random.Random(seed)
    self._ended = 0  # runs so far, by any signal: the next one's kind of moment follows from it
    self._shortest = finish(out / "whole", self._cache)  # it compiles, and builds the data: others take less
    self._reference = remains(out / "whole")

  def run(self, number: int, times: int) -> list[Ended]:
    """Makes that many runs, each ended by a signal at the next kind of moment, and prints a line for each."""
    ended: list[Ended] = []
    while len(ended) < times:
      workdir, kind = self._out / f"{number}-{len(ended)}", KINDS[self._ended % len(KINDS)]
      death = end(workdir, self._cache, kind, number, self._chance, self._shortest)
      if death is not None:  # else it got through, and is none of them
        self._shortest = min(self._shortest, finish(workdir, self._cache))
        wrong = differences(self._reference, remains(workdir))
        ended.append((death, wrong))
        self._ended += 1
        found = f"DIFFERS in {', '.join(wrong)}" if wrong else "identical"
        self._console.print(f"{len(ended)}/{times}: {death}: {found}", highlight=False)
      shutil.rmtree(workdir, ignore_errors=True)
    return ended


def kills_table(ended: Sequence[Ended]) -> tuple[Table, bool]:
  """(what runs were at when they died, whether all is well): a kill stands in every row that it fits."""
  table = Table("killed during", "kills", "identical afterwards")
  for kind in sorted({kind for death, _ in ended for kind in death.at.kinds}):
    wrong = [bad for death, bad in ended if kind in death.at.kinds]
    table.add_row(kind, str(len(wrong)), str(sum(not bad for bad in wrong)))
  identical = sum(not wrong for _, wrong in ended)
  table.add_section()
  table.add_row("all", str(len(ended)), str(identical))
  return table, identical == len(ended)


def not_met(ended: Sequence[Ended]) -> list[str]:
  """The kinds of moment that no kill hit."""
  return sorted(set(KINDS[:-1]) - {kind for death, _ in ended for kind in death.at.kinds})


def stops_table(ended: Sequence[Ended]) -> tuple[Table, bool]:
  """(seconds from SIGTERM until a run is gone, whether all is well)."""
  table = Table("SIGTERM during", "stops", "status", "median, s", "longest, s", "identical afterwards")
  for kind in sorted({kind for death, _ in ended for kind in death.at.kinds}):
    some = [(death, bad) for death, bad in ended if kind in death.at.kinds]
    seconds = [death.seconds for death, _ in some]
    statuses = ", ".join(sorted({str(death.status) for death, _ in some}))
    times = f"{statistics.median(seconds):.2f}", f"{max(seconds):.2f}"
    table.add_row(kind, str(len(some)), statuses, *times, str(sum(not bad for _, bad in some)))
  expected = {128 + signal.SIGTERM, -signal.SIGTERM}
  return table, all(not bad and death.status in expected for death, bad in ended)


def campaign(out: Path, kills: int, stops: int, seed: int, console: Console) -> int:
  """Runs it all and prints the tables; returns the exit status."""
  runs = Campaign(out, seed, console)
  killed = runs.run(signal.SIGKILL, kills)
  table, well = kills_table(killed)
  console.print(table)
  missed = not_met(killed)
  same = sum(not wrong for _, wrong in killed)
  console.print(f"{same} of {kills} identical" + (f"; not met: {', '.join(missed)}" if missed else ""))
  if stops:
    times, stopped_well = stops_table(runs.run(signal.SIGTERM, stops))
    console.print(times)
    well = well and stopped_well
  return 0 if well and (not missed or kills < len(KINDS)) else 1


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--kills", type=int, default=25)
  parser.add_argument("--stops", type=int, default=10, help="by SIGTERM, afterwards")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", type=Path, default=Path("build/kill_campaign"))
  options = parser.parse_args()
  return campaign(options.out.absolute(), options.kills, options.stops, options.seed, Console(width=150))


if __name__ == "__main__":
  sys.exit(main())
