"""Where a run's numbers go: metrics.jsonl, TensorBoard and, if asked for, Weights & Biases."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from mmjax.errors import UserError
from mmjax.experiment import Experiment, to_json
from mmjax.files import write_atomically

Numbers = Mapping[str, float]
METRICS, EVENTS = "metrics.jsonl", "events.jsonl"


class Writer(Protocol):
  """Takes the numbers of one step. `rewind` forgets the steps after one; `sync` puts on the disk what was written."""

  def write(self, step: int, numbers: Numbers) -> None: ...

  def write_evaluation(self, step: int, numbers: Numbers) -> None: ...

  def rewind(self, step: int) -> None: ...

  def sync(self) -> None: ...

  def close(self) -> None: ...


class Lines:
  """A file of one JSON object a line, each with a number by which the file grows.

  Args:
    path: the file.
    counter: the name of that number.
    up_to: lines with a larger number, of a run that died after its last checkpoint, are dropped.
  """

  def __init__(self, path: Path, *, counter: str, up_to: int):
    self._path, self._counter = path, counter
    self._open(up_to)

  def add(self, record: Mapping[str, Any]) -> None:
    """Raises UserError where the file cannot be written."""
    try:
      self._file.write(json.dumps(record) + "\n")
      self._file.flush()  # a crash loses no line
    except OSError as error:
      raise UserError(
        f"{self._path} could not be written: {error.strerror}; the checkpoints are as they were"
      ) from error

  def rewind(self, up_to: int) -> None:
    """Drops the lines with a larger number."""
    self._file.close()
    self._open(up_to)

  def sync(self) -> None:
    """Puts the lines on the disk, where they also survive a machine that dies."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    self._file.close()

  def _open(self, up_to: int) -> None:
    before = self._path.read_bytes() if self._path.is_file() else b""  # a device or a pipe may have no end
    kept = "".join(json.dumps(record) + "\n" for record in records(before) if record.get(self._counter, 0) <= up_to)
    if kept.encode() != before:
      write_atomically(self._path, kept)  # killed meanwhile: the old lines, or the new ones
    self._file = self._path.open("a", encoding="utf-8")


def records(content: bytes) -> list[dict[str, Any]]:
  """The objects in a file of JSON lines; what a crash left half written is no object, and is dropped."""
  found = []
  for line in content.decode("utf-8", errors="replace").splitlines():
    try:
      record = json.loads(line)
    except json.JSONDecodeError:
      continue
    if isinstance(record, dict):
      found.append(record)
  return found


def read_evaluations(workdir: Path, up_to: int) -> dict[int, dict[str, float]]:
  """{step: metrics} of the evaluations during training, as far as that step."""
  path = workdir / METRICS
  lines = records(path.read_bytes()) if path.is_file() else []
  return {line["step"]: line["eval"] for line in lines if "eval" in line and line["step"] <= up_to}


class JsonLines:
  """metrics.jsonl: the numbers of a step, or {"step": n, "eval": {...}}, a line; a resumed run has no line twice."""

  def __init__(self, path: Path, *, resumed_from: int):
    self._lines = Lines(path, counter="step", up_to=resumed_from)
    self.rewind, self.sync, self.close = self._lines.rewind, self._lines.sync, self._lines.close

  def write(self, step: int, numbers: Numbers) -> None:
    self._lines.add({"step": step, **numbers})

  def write_evaluation(self, step: int, numbers: Numbers) -> None:
    self._lines.add({"step": step, "eval": dict(numbers)})


class TensorBoard:
  """Event files for TensorBoard under `directory`."""

  def __init__(self, directory: Path, *, resumed_from: int):
    from tensorboardX import SummaryWriter  # slow to import, and not needed for --help

    self._open = lambda step: SummaryWriter(str(directory), purge_step=step + 1)
    self._writer = self._open(resumed_from)

  def write(self, step: int, numbers: Numbers) -> None:
    for name, value in numbers.items():
      self._writer.add_scalar(f"train/{name}", value, step)

  def write_evaluation(self, step: int, numbers: Numbers) -> None:
    for name, value in numbers.items():
      self._writer.add_scalar(f"eval/{name}", value, step)

  def rewind(self, step: int) -> None:
    self._writer.close()
    self._writer = self._open(step)

  def sync(self) -> None:
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


class WeightsAndBiases:
  """A Weights & Biases run (the extra `wandb`); the service's own settings come from its environment variables."""

  def __init__(self, project: str, config: Mapping[str, Any], directory: Path):
    try:
      import wandb
    except ImportError as error:
      raise ImportError("run.wandb_project needs Weights & Biases: pip install 'mmjax[wandb]'") from error
    self._run = wandb.init(project=project, config=dict(config), dir=str(directory), resume="allow")

  def write(self, step: int, numbers: Numbers) -> None:
    self._run.log({f"train/{name}": value for name, value in numbers.items()}, step=step)

  def write_evaluation(self, step: int, numbers: Numbers) -> None:
    self._run.log({f"eval/{name}": value for name, value in numbers.items()}, step=step)

  def rewind(self, step: int) -> None:
    """Nothing: the service keeps what it was given, and takes no step twice."""

  def sync(self) -> None:
    """Nothing: the service's own process sends what it was given."""

  def close(self) -> None:
    self._run.finish()


class Fanout:
  """Hands every number to several writers."""

  def __init__(self, writers: Sequence[Writer]):
    self._writers = writers

  def write(self, step: int, numbers: Numbers) -> None:
    for writer in self._writers:
      writer.write(step, numbers)

  def write_evaluation(self, step: int, numbers: Numbers) -> None:
    for writer in self._writers:
      writer.write_evaluation(step, numbers)

  def rewind(self, step: int) -> None:
    for writer in self._writers:
      writer.rewind(step)

  def sync(self) -> None:
    for writer in self._writers:
      writer.sync()

  def close(self) -> None:
    for writer in self._writers:
      writer.close()


def make_writers(experiment: Experiment, workdir: Path, start: int) -> Writer:
  """Those that the run asks for; what they hold of steps after `start` is dropped."""
  run = experiment.run
  writers: list[Writer] = [JsonLines(workdir / METRICS, resumed_from=start)]
  if run.tensorboard:
    writers.append(TensorBoard(workdir / "tensorboard", resumed_from=start))
  if run.wandb_project:
    writers.append(WeightsAndBiases(run.wandb_project, to_json(experiment), workdir))
  return Fanout(writers)
