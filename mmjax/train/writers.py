"""Writers of a run's metrics: metrics.jsonl, TensorBoard and Weights & Biases."""

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
  """Writes the metrics of steps. `rewind` drops the steps after a given one. `sync` forces the data to the disk."""

  def write(self, step: int, numbers: Numbers) -> None: ...

  def write_evaluation(self, step: int, numbers: Numbers) -> None: ...

  def rewind(self, step: int) -> None: ...

  def sync(self) -> None: ...

  def close(self) -> None: ...


class Lines:
  """A file with one JSON object per line. Each object has a counter that grows from line to line.

  Args:
    path: the file.
    counter: name of the counter.
    up_to: lines with a larger counter are dropped. They are of a run that died after its last checkpoint.
  """

  def __init__(self, path: Path, *, counter: str, up_to: int):
    self._path, self._counter = path, counter
    self._open(up_to)

  def add(self, record: Mapping[str, Any]) -> None:
    """Append an object. Raises UserError if the file cannot be written."""
    try:
      self._file.write(json.dumps(record) + "\n")
      self._file.flush()  # so that a crash loses no line
    except OSError as error:
      raise UserError(f"{self._path} could not be written: {error.strerror}; the checkpoints are unchanged") from error

  def rewind(self, up_to: int) -> None:
    """Drop the lines with a larger counter."""
    self._file.close()
    self._open(up_to)

  def sync(self) -> None:
    """Force the lines to the disk, so that a crash of the machine does not lose them."""
    os.fsync(self._file.fileno())

  def close(self) -> None:
    self._file.close()

  def _open(self, up_to: int) -> None:
    before = self._path.read_bytes() if self._path.is_file() else b""  # a device or a pipe may have no end
    kept = "".join(json.dumps(record) + "\n" for record in records(before) if record.get(self._counter, 0) <= up_to)
    if kept.encode() != before:
      write_atomically(self._path, kept)  # if killed here, the file has the old lines or the new ones
    self._file = self._path.open("a", encoding="utf-8")


def records(content: bytes) -> list[dict[str, Any]]:
  """Parse the objects in a file of JSON lines. Incomplete lines, which a crash can leave, are dropped."""
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
  """Read {step: metrics} of the evaluations during training, up to a step."""
  path = workdir / METRICS
  lines = records(path.read_bytes()) if path.is_file() else []
  return {line["step"]: line["eval"] for line in lines if "eval" in line and line["step"] <= up_to}


class JsonLines:
  """Writer of metrics.jsonl. A line has the metrics of a step, or {"step": n, "eval": {...}} of an evaluation.

  Args:
    path: the file.
    resumed_from: step from which the run resumes. Lines of later steps are dropped.
  """

  def __init__(self, path: Path, *, resumed_from: int):
    self._lines = Lines(path, counter="step", up_to=resumed_from)
    self.rewind, self.sync, self.close = self._lines.rewind, self._lines.sync, self._lines.close

  def write(self, step: int, numbers: Numbers) -> None:
    self._lines.add({"step": step, **numbers})

  def write_evaluation(self, step: int, numbers: Numbers) -> None:
    self._lines.add({"step": step, "eval": dict(numbers)})


class TensorBoard:
  """Writer of event files for TensorBoard.

  Args:
    directory: their folder.
    resumed_from: step from which the run resumes. TensorBoard hides later steps.
  """

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
  """Writer to a Weights & Biases run (the extra `wandb`). The service reads its settings from environment variables."""

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
    """Do nothing. The service keeps all steps, and ignores a step that is sent again."""

  def sync(self) -> None:
    """Do nothing. A process of the service sends the data."""

  def close(self) -> None:
    self._run.finish()


class Fanout:
  """Writer that passes all metrics to several writers."""

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
  """Make the writers that the run asks for. Their data of steps after `start` is dropped."""
  run = experiment.run
  writers: list[Writer] = [JsonLines(workdir / METRICS, resumed_from=start)]
  if run.tensorboard:
    writers.append(TensorBoard(workdir / "tensorboard", resumed_from=start))
  if run.wandb_project:
    writers.append(WeightsAndBiases(run.wandb_project, to_json(experiment), workdir))
  return Fanout(writers)
