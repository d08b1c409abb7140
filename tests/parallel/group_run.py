"""The smallest run, started several times by tests of process groups: it writes down which records its source was
asked for, and, where HURT says so, harms itself.

  HURT="kill 1 3, term 0 2" group_run.py train --run.workdir DIR ...

Process 1 kills itself (-9) when it asks for its third batch; in the run that comes after that, process 0 sends itself
SIGTERM at its second batch. "raise" raises a DataError.
"""

import os
import signal
import sys
import time
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[2]))  # this file is started as a script

from mmjax import cli
from mmjax.data import DataError
from mmjax.data.feed import Feed
from mmjax.train import loop
from tests.tiny import EXPERIMENT


class Asked:
  """A source that appends what it is asked for to a file of this process's."""

  def __init__(self, source):
    self._source, self._file = source, workdir() / f"asked-{jax.process_index()}.txt"

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    with self._file.open("a") as file:
      file.write(f"{int(index)}\n")
    return self._source[index]


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


def workdir() -> Path:
  return Path(sys.argv[sys.argv.index("--run.workdir") + 1])


if __name__ == "__main__":
  make_loader = loop.make_loader
  loop.make_loader = lambda config, source, *a, **k: make_loader(config, Asked(source), *a, **k)
  loop.device_prefetch = HurtFeed
  cli._report = lambda run: 0  # seconds of drawing, and tested elsewhere
  cli.main(EXPERIMENT)
