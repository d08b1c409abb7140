"""Training that goes on from a run with a changed model: after pruning, or with weights that are rounded to int8."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmjax.deploy.formats import DeployError
from mmjax.settings import NO_ADAPTERS, NO_COMPRESSION, CompressionConfig, PretrainedConfig

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run

PRUNED = "pruned"
"""Folder of the weights that a run begins from, in its workdir."""


def write_weights(run: Run, config: Any, params: Any, folder: Path) -> Path:
  """Write a model that was made of a run's, in mmjax's own format, with the run's tokenizer and preprocessing.

  Args:
    run: the run.
    config: configuration of the model.
    params: its parameters.
    folder: folder to write.
  """
  from mmjax.interop.export import export_run

  experiment = dataclasses.replace(run.experiment, model=config)
  return export_run(
    dataclasses.replace(run, experiment=experiment, model=config.build(), params=params), "mmjax", folder
  )


def continued(
  run: Run,
  config: Any,
  params: Any,
  out: Path,
  *,
  steps: int | None = None,
  learning_rate: float | None = None,
  compression: CompressionConfig = NO_COMPRESSION,
) -> Experiment:
  """Experiment of a run that begins from the weights of another, in OUT/pruned. They are written here.

  Args:
    run: the run to begin from. Its data, objectives and optimiser are those of the new one.
    config: configuration of the new model.
    params: its parameters.
    out: workdir of the new run.
    steps: steps of the new run. None: a quarter of those of the run.
    learning_rate: peak learning rate. None: half of the run's.
    compression: settings of magnitude pruning and of quantisation-aware training.
  Raises: DeployError: the workdir is that of the run, or a number is out of range.
  """
  out, before = out.expanduser(), run.experiment
  if out.resolve() == run.workdir.resolve():
    raise DeployError(f"{out} is the workdir of the run to begin from: give another --out")
  steps = max(1, before.run.steps // 4) if steps is None else steps
  if steps < 1:
    raise DeployError(f"--steps is {steps}: it must be at least 1")
  rate = before.optimizer.learning_rate / 2 if learning_rate is None else learning_rate
  folder = write_weights(run, config, params, out / PRUNED)
  warmup = min(before.optimizer.warmup_steps, steps // 10)
  return dataclasses.replace(
    before,
    model=config,
    pretrained=PretrainedConfig(path=str(folder)),
    adapter=NO_ADAPTERS,
    compression=compression,
    optimizer=dataclasses.replace(before.optimizer, learning_rate=rate, warmup_steps=warmup),
    run=dataclasses.replace(before.run, workdir=out, steps=steps, resume=True),
  )


def train_and_measure(experiment: Experiment) -> tuple[int, list[Any]]:
  """Train, evaluate and write the report. Returns (exit status as `mmjax.train.loop.Outcome`, results)."""
  from mmjax.evaluate import check_ready, measure
  from mmjax.report import check_report, write_report
  from mmjax.train.loop import train

  outcome = train(experiment, checks=(check_ready, check_report))
  if outcome.exit_status:
    return outcome.exit_status, []
  results = measure(outcome.run)
  write_report(outcome.run.workdir, outcome.run)
  return 0, list(results)
