"""The smallest run, started by tests of process groups and by scripts/benchmarks/processes.py.

It writes down which records its source was asked for, which pictures evaluation decoded and, where HURT says so, harms
itself:

  HURT="kill 1 3, term 0 2" group_run.py train --run.workdir DIR ...

Process 1 kills itself (-9) when it asks for its third batch; in the run that comes after that, process 0 sends itself
SIGTERM at its second batch. "raise" raises a DataError.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from mmjax import cli
from mmjax.data import DataError
from mmjax.data.feed import Feed
from mmjax.data.images.decoding import decode
from mmjax.evaluate import images
from mmjax.train import loop
from tests.tiny import EXPERIMENT

ROOT = Path(__file__).parents[2]


class Asked:
  """A source that appends what it is asked for to a file of this process's."""

  def __init__(self, source):
    self._source, self._file = source, workdir() / f"asked-{jax.process_index()}.txt"
    self.fingerprint = source.fingerprint

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    with self._file.open("a") as file:
      file.write(f"{int(index)}\n")
    return self._source[index]


def decoded(picture, *, record, max_pixels):
  """Evaluation's decoder, which appends the record's name to a file of this process's."""
  with (workdir() / f"decoded-{jax.process_index()}.txt").open("a") as file:
    file.write(f"{record}\n")
  return decode(picture, record=record, max_pixels=max_pixels)


class HurtFeed(Feed):
  """A feed that does what HURT says when its time has come."""

  asked = 0

  def __next__(self):
    self.asked += 1
    for number, action in enumerate(filter(None, os.environ.get("HURT", "").split(","))):
      marker = workdir() / f"hurt-{number}"
      if not marker.exists():
        what, process, batch = action.split()
        if jax.process_index() == int(process) and self.asked == int(batch):
          marker.touch()
          hurt(what)
        break
    return super().__next__()


def hurt(what: str) -> None:
  if what == "raise":
    raise DataError("the record cat.png is bad")
  os.kill(os.getpid(), {"kill": signal.SIGKILL, "term": signal.SIGTERM}[what])
  time.sleep(3)  # JAX looks once a second whether there was a SIGTERM; the steps here take hundredths of one


def write_pictures(folder: Path, count: int = 240) -> Path:
  """A data set: enough for each to be seen once at most in a few steps, so that no two processes share one."""
  rng = np.random.default_rng(0)
  for number in range(count):
    Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / f"{number}.png")
  rows = "".join(f"{number}.png,number {number} of them\n" for number in range(count))
  (folder / "captions.csv").write_text("image,caption\n" + rows)
  return folder


def start(launch: list[str], folder: Path, workdir: Path, steps: int, hurt: str = "") -> subprocess.CompletedProcess:
  """Runs this file in a group; `launch` are the options of scripts/launch/local.py."""
  settings = {"data.source": "folder", "data.source.path": folder, "data.dir": folder / "cache"}
  settings |= {"data.prefetch": 1, "run.workdir": workdir, "run.steps": steps, "run.save-every": 2}
  options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
  # No compilation cache: on CPU only process 0 profits from it, and Gloo gives the others 30 s to compile and meet it.
  quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
  return subprocess.run(
    [sys.executable, str(ROOT / "scripts" / "launch" / "local.py"), *launch, __file__, "train", *options],
    env={"XLA_FLAGS": quick}
    | os.environ
    | {"HURT": hurt, "PYTHONPATH": str(ROOT), "JAX_ENABLE_COMPILATION_CACHE": "false"},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=600,
  )


def workdir() -> Path:
  return Path(sys.argv[sys.argv.index("--run.workdir") + 1])


if __name__ == "__main__":
  make_loader = loop.make_loader
  loop.make_loader = lambda config, source, *a, **k: make_loader(config, Asked(source), *a, **k)
  loop.device_prefetch = HurtFeed
  images.decode = decoded
  cli._report = lambda run: 0  # seconds of drawing, and tested elsewhere
  cli.main(EXPERIMENT)
