"""A group of processes against one process, and a group that is killed and stopped against one that is left alone.

`python scripts/benchmarks/processes.py [--processes 2 4] [--out DIR]`

For each number of processes, with two virtual CPU devices each: one process on all the devices; a group; and a group
of which first one process is killed (-9), then one gets a SIGTERM, each at a later start, and which the launcher
starts again each time. The losses of the group are compared with the single process's (1e-5); losses, steps and
results.json of the hurt group with the other group's (to the bit). Exit status 0: all of it holds.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2]))  # the run is the tests': tests/parallel/group_run.py

from tests.parallel.group_run import start, write_pictures

STEPS = 8


def run(folder: Path, workdir: Path, processes: int, devices: int, hurt: str = "") -> tuple[Path, str, float]:
  """(workdir, what was said, seconds) of a run by the local launcher."""
  workdir.mkdir()
  launch = ["--processes", str(processes), "--devices", str(devices), "--max-restarts", "3", "--grace", "20"]
  began = time.monotonic()
  done = start(launch, folder, workdir, STEPS, hurt)
  if done.returncode:
    sys.exit(f"{workdir} ended with status {done.returncode}:\n{done.stdout}")
  return workdir, done.stdout, time.monotonic() - began


def losses(workdir: Path) -> list[tuple[int, float]]:
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return [(line["step"], line["loss"]) for line in lines]


def results(workdir: Path) -> list[dict]:
  """Without the workdir's own name."""
  return [{**result, "pretrained": ""} for result in json.loads((workdir / "results.json").read_text())]


def difference(one: Path, other: Path) -> float:
  """The largest relative difference of two runs' losses; infinite where their steps differ."""
  first, second = losses(one), losses(other)
  if [step for step, _ in first] != [step for step, _ in second] or len(first) != STEPS:
    return float("inf")
  return max(abs(a - b) / abs(b) for (_, a), (_, b) in zip(first, second, strict=True))


def compare(folder: Path, out: Path, count: int) -> tuple[list[str], bool]:
  """The table's row for a number of processes, and whether everything holds."""
  alone, _, _ = run(folder, out / f"alone{count}", 1, 2 * count)
  group, _, seconds = run(folder, out / f"group{count}", count, 2)
  hurt, said, _ = run(folder, out / f"hurt{count}", count, 2, hurt=f"kill {count - 1} 5, term {count // 2} 1")
  far, same = difference(group, alone), losses(hurt) == losses(group) and results(hurt) == results(group)
  went = re.findall(r"(was killed by \w+|stopped after step \d+|resumed after step \d+)", said)
  return [str(count), f"{far:.1e}", str(same), "; ".join(went), f"{seconds:.0f}"], far <= 1e-5 and same


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
  parser.add_argument("--out", type=Path, help="keeps the workdirs here")
  options = parser.parse_args()
  out = options.out or Path(tempfile.mkdtemp(prefix="mmjax-processes-"))
  (out / "pictures").mkdir(parents=True)
  folder = write_pictures(out / "pictures")
  table = Table("processes", "group against one process", "hurt group identical", "what happened", "group, s")
  good = True
  for count in options.processes:
    row, holds = compare(folder, out, count)
    table.add_row(*row)
    good &= holds
  Console(width=140).print(table)
  sys.exit(0 if good else 1)


if __name__ == "__main__":
  main()
