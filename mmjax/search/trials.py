"""The trials of a search on disk, shared by the processes of one machine."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mmjax.errors import ConfigError
from mmjax.files import write_atomically
from mmjax.search.halving import Trial

SETTINGS = "search.json"


class Trials:
  """The trials in a folder.

  A process holds a lock on the folder of the trial that it trains. The system releases it however the process ends. So
  a trial whose process was killed is free again, and goes on from its last checkpoint.

  Args:
    workdir: folder of the search. Processes must share its file system's locks: those of one machine do.
  """

  def __init__(self, workdir: Path) -> None:
    self.workdir = workdir
    self._held: dict[int, IO[str]] = {}

  def begin(self, settings: dict[str, Any]) -> None:
    """Write the settings of the search, or check that the folder's search has the same.

    Raises: ConfigError: it has others; the message names the first that differs.
    """
    self.workdir.mkdir(parents=True, exist_ok=True)
    path = self.workdir / SETTINGS
    wanted = json.loads(json.dumps(settings))
    with self.locked():
      if not path.exists():
        write_atomically(path, json.dumps(wanted, indent=2) + "\n")
        return
      known = json.loads(path.read_text(encoding="utf-8"))
    for name in sorted({*known, *wanted}):
      if known.get(name) != wanted.get(name):
        raise ConfigError(
          f"the search in {self.workdir} was begun with another {name}: {_short(known.get(name))}, not "
          f"{_short(wanted.get(name))}. Take that again, or another --run.workdir"
        )

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Context in which no other process chooses a trial."""
    with (self.workdir / "lock").open("a") as file:
      fcntl.flock(file, fcntl.LOCK_EX)
      yield

  def all(self) -> list[Trial]:
    """All trials, in the order of their numbers."""
    paths = sorted((self.workdir / "trials").glob("*/trial.json"), key=lambda path: int(path.parent.name))
    return [_trial(path) for path in paths]

  def folder(self, number: int) -> Path:
    """The folder of a trial, which is the workdir of its run."""
    return self.workdir / "trials" / str(number)

  def write(self, trial: Trial) -> None:
    """Save a trial."""
    self.folder(trial.number).mkdir(parents=True, exist_ok=True)
    write_atomically(
      self.folder(trial.number) / "trial.json",
      json.dumps({**vars(trial), "scores": dict(trial.scores)}, indent=2) + "\n",
    )

  def take(self, number: int) -> bool:
    """Claim a trial for this process. False if another one has it."""
    self.folder(number).mkdir(parents=True, exist_ok=True)
    file = (self.folder(number) / "lock").open("a")
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.close()
      return False
    self._held[number] = file
    return True

  def release(self, number: int) -> None:
    """Give up the claim on a trial."""
    self._held.pop(number).close()

  def is_free(self, trial: Trial) -> bool:
    """True if no process has claimed the trial. Call it within `locked`."""
    if not self.take(trial.number):
      return False
    self.release(trial.number)
    return True


def _trial(path: Path) -> Trial:
  fields = json.loads(path.read_text(encoding="utf-8"))
  scores = {int(step): score for step, score in fields["scores"].items()}
  return Trial(fields["number"], fields["values"], scores, fields["note"])


def _short(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) < 80 else f"{text[:77]}..."
