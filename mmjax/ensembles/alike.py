"""Checks that runs can be put together, and the settings of the run that they become."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, PretrainedConfig
from mmjax.run import Run
from mmjax.settings import NO_ADAPTERS
from mmjax.train.parameters import BALANCE


def check_inputs(runs: Sequence[Run]) -> None:
  """Raise ConfigError if runs prepare their inputs differently, or name other classes. The message names the first."""
  if not runs:
    raise ConfigError("there are no runs to put together: name at least one")
  first = runs[0]
  for run in runs[1:]:
    both = f"the runs in {first.workdir} and {run.workdir}"
    if run.transform != first.transform:
      raise ConfigError(f"{both} prepare images differently ({first.transform} and {run.transform}): train them alike")
    if (run.tokenizer is None) != (first.tokenizer is None):
      raise ConfigError(f"one of {both} has a tokenizer, the other has none")
    if run.tokenizer is not None and first.tokenizer is not None and not run.tokenizer.same_ids(first.tokenizer):
      raise ConfigError(f"{both} have different tokenizers: train them with the same data.tokenizer and data")
    for column in sorted({*first.fitted, *run.fitted}):
      if first.fitted.get(column) != run.fitted.get(column):
        raise ConfigError(
          f"the column {column!r} learned different values (classes, for example) in {both}: train them on the same "
          "data"
        )


def check_models(runs: Sequence[Run]) -> None:
  """Raise ConfigError if runs have different models. The message names the first field that differs."""
  first = runs[0]
  for run in runs[1:]:
    if run.experiment.model != first.experiment.model:
      field = _difference(first.experiment.model, run.experiment.model)
      raise ConfigError(f"the runs in {first.workdir} and {run.workdir} have different models: {field}")


def own_params(run: Run) -> dict[str, Any]:
  """Parameters of the model, without the learned weights of loss terms."""
  return {name: part for name, part in run.params.items() if name != BALANCE}


def together(run: Run, workdir: Path, **changes: Any) -> Run:
  """A run with new parameters in a workdir of its own, whose experiment describes how it is loaded.

  Adapters are part of its kernels, and it has no moving average.

  Args:
    run: a run whose data and settings the new one has.
    workdir: folder of the new run.
    changes: fields of the run that are replaced, `experiment` among them.
  """
  experiment: Experiment = changes.pop("experiment", run.experiment)
  if Path(workdir).expanduser().resolve() == run.workdir.expanduser().resolve():
    raise ConfigError(f"{workdir} is the workdir of one of the runs: choose another for what they become")
  experiment = dataclasses.replace(
    experiment,
    pretrained=PretrainedConfig(),
    adapter=NO_ADAPTERS,
    balance="fixed",
    optimizer=dataclasses.replace(experiment.optimizer, ema_decay=_average_of_teachers(experiment)),
    run=dataclasses.replace(experiment.run, workdir=Path(workdir)),
  )
  return dataclasses.replace(run, experiment=experiment, workdir=Path(workdir), adapters=None, **changes)


def _average_of_teachers(experiment: Experiment) -> float:
  """Decay that the objectives require of the configuration. 0 if none has the moving average as its teacher."""
  return experiment.optimizer.ema_decay if any(term.teacher for term in experiment.objectives) else 0.0


def _difference(one: Any, other: Any, path: str = "model") -> str:
  """First field that differs between two configurations."""
  if type(one) is not type(other):
    return f"{path} is a {type(one).__name__} and a {type(other).__name__}"
  if not dataclasses.is_dataclass(one):
    if isinstance(one, dict) and one.keys() == other.keys():
      name = next(name for name in one if one[name] != other[name])
      return _difference(one[name], other[name], f"{path}.{name}")
    return f"{path} is {one} and {other}"
  name = next(f.name for f in dataclasses.fields(one) if getattr(one, f.name) != getattr(other, f.name))
  return _difference(getattr(one, name), getattr(other, name), f"{path}.{name}")
