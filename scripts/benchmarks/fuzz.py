"""Every parser of files from outside against hostile bytes: no crash other than the documented errors.

  python scripts/benchmarks/fuzz.py --inputs 100000 [--targets tar jsonl ...] [--seed 0] [--out build/fuzz]

Prints a line of JSON per target: how many inputs were accepted, how many refused with a documented error, and how many
crashed; the slowest input; the largest resident memory. Each target has a process of its own, which may have 4 GB: a
library that crashes it natively, or that wants more, is a crash as well. A crash's input is kept in --out with its
traceback, and the exit status is 1. An input that takes longer than 20 seconds is a crash too.
"""

import argparse
import json
import logging
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import fuzz_targets

_LIMIT = 20  # seconds for an input
_MEMORY = 4 << 30


class TooSlow(Exception):
  """An input took longer than it may."""


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--inputs", type=int, default=100_000, help="for each target")
  parser.add_argument("--targets", nargs="+", default=list(fuzz_targets.TARGETS), choices=list(fuzz_targets.TARGETS))
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
  options = parser.parse_args()
  crashed = 0
  for name in options.targets:
    result = isolated(name, options.inputs, options.seed, options.out)
    print(json.dumps(result), flush=True)
    crashed += result["crashed"]
  return int(crashed > 0)


def isolated(name: str, inputs: int, seed: int, out: Path) -> dict[str, Any]:
  """`fuzz` in a process of its own; where that dies, the input that it died of is in `out`."""
  out.mkdir(parents=True, exist_ok=True)
  ours, theirs = multiprocessing.Pipe(duplex=False)
  child = multiprocessing.get_context("fork").Process(target=_fuzz_alone, args=(theirs, name, inputs, seed, out))
  child.start()
  theirs.close()
  try:
    return json.loads(ours.recv_bytes())
  except EOFError:
    child.join()
    cause = signal.Signals(-child.exitcode).name if (child.exitcode or 0) < 0 else f"status {child.exitcode}"
    return {"target": name, "inputs": inputs, "crashed": 1, "kinds": {cause: 1}, "input": f"{out}/{name}-last.input"}
  finally:
    child.join()


def _fuzz_alone(answer: Connection, name: str, inputs: int, seed: int, out: Path) -> None:
  resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
  logging.disable(logging.CRITICAL)
  warnings.simplefilter("ignore")
  answer.send_bytes(json.dumps(fuzz(name, inputs, seed, out)).encode())


def fuzz(name: str, inputs: int, seed: int, out: Path) -> dict[str, Any]:
  """Runs a target on so many inputs, a function of the seed; the counts, as they are printed."""
  last = out / f"{name}-last.input"
  counts = {"accepted": 0, "refused": 0, "crashed": 0}
  slowest, begun = 0.0, time.process_time()
  kinds: dict[str, int] = {}
  signal.signal(signal.SIGALRM, _too_slow)
  with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
    target = fuzz_targets.TARGETS[name](Path(folder))
    rng = random.Random(f"{name} {seed}")
    for number in range(inputs):
      data = target.mutate(rng, rng.choice(target.seeds), target.seeds)
      last.write_bytes(data)  # should the process die of it
      start = time.process_time()
      signal.alarm(_LIMIT)
      try:
        target.run(data)
        counts["accepted"] += 1
      except target.documented:
        counts["refused"] += 1
      except BaseException as error:  # a panic of a Rust library is no Exception
        if isinstance(error, KeyboardInterrupt):
          raise
        counts["crashed"] += 1
        kind = f"{type(error).__name__} {_place(error)}"
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] <= 2:
          _keep(out, f"{name}-{number}", data)
      finally:
        signal.alarm(0)
      slowest = max(slowest, time.process_time() - start)
  last.unlink(missing_ok=True)
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  seconds = time.process_time() - begun
  return {"target": name, "inputs": inputs, **counts, "kinds": kinds, "slowest_s": round(slowest, 3),
          "cpu_s": round(seconds, 1), "peak_mb": round(memory)}  # fmt: skip


def _keep(out: Path, name: str, data: bytes) -> None:
  (out / f"{name}.input").write_bytes(data)
  (out / f"{name}.txt").write_text(traceback.format_exc(), encoding="utf-8", errors="backslashreplace")


def _place(error: BaseException) -> str:
  """The line of mmjax that it came through last."""
  frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/mmjax/" in frame.filename]
  return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside of mmjax"


def _too_slow(*_: Any) -> None:
  raise TooSlow(f"over {_LIMIT} seconds")


if __name__ == "__main__":
  sys.exit(main())
