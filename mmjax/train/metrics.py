"""Where a run's numbers go: metrics.jsonl, TensorBoard and, if asked for, Weights & Biases."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

Numbers = Mapping[str, float]


class Writer(Protocol):
  """Takes the numbers of one step."""

  def write(self, step: int, numbers: Numbers) -> None: ...

  def write_evaluation(self, step: int, numbers: Numbers) -> None: ...

  def close(self) -> None: ...


class JsonLines:
  """One JSON object a line in `path`; a resumed run drops the lines after the step that it resumes from."""

  def __init__(self, path: Path, *, resumed_from: int):
    kept = _lines_up_to(path, resumed_from) if path.exists() else []
    path.write_text("".join(kept), encoding="utf-8")
    self._file = path.open("a", encoding="utf-8")

  def write(self, step: int, numbers: Numbers) -> None:
    self._line({"step": step, **numbers})

  def write_evaluation(self, step: int, numbers: Numbers) -> None:
    self._line({"step": step, "eval": dict(numbers)})

  def close(self) -> None:
    self._file.close()

  def _line(self, record: Mapping[str, Any]) -> None:
    self._file.write(json.dumps(record) + "\n")
    self._file.flush()  # a crash loses no line


def _lines_up_to(path: Path, step: int) -> list[str]:
  """The whole lines of steps up to `step`; a line that a crash cut short is dropped."""
  kept = []
  for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
    if not line.endswith("\n"):
      break
    if json.loads(line)["step"] <= step:
      kept.append(line)
  return kept


class TensorBoard:
  """Event files for TensorBoard under `directory`."""

  def __init__(self, directory: Path, *, resumed_from: int):
    from tensorboardX import SummaryWriter  # slow to import, and not needed for --help

    self._writer = SummaryWriter(str(directory), purge_step=resumed_from + 1)

  def write(self, step: int, numbers: Numbers) -> None:
    for name, value in numbers.items():
      self._writer.add_scalar(f"train/{name}", value, step)

  def write_evaluation(self, step: int, numbers: Numbers) -> None:
    for name, value in numbers.items():
      self._writer.add_scalar(f"eval/{name}", value, step)

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

  def close(self) -> None:
    for writer in self._writers:
      writer.close()
