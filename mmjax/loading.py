"""Loading what a training run left in its workdir."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax

from mmjax.data.columns.fitting import load_columns
from mmjax.data.features import run_columns
from mmjax.experiment import read_experiment
from mmjax.interop.run_image import read_image
from mmjax.interop.run_tokenizer import load_saved
from mmjax.kinds import Kind
from mmjax.models.adapters import ADAPTERS
from mmjax.models.config import image_size
from mmjax.parallel.mesh import make_mesh
from mmjax.run import CHECKPOINTS, COLUMNS, CONFIG, PREPROCESS, TOKENIZER, Run
from mmjax.train.adapters import with_adapters
from mmjax.train.checkpoint import Checkpoints
from mmjax.train.parameters import TERMS
from mmjax.train.setup import parameter_plan


def load_run(
  workdir: str | Path, *, step: int | None = None, kinds: Sequence[type[Kind]] = (), average: bool | None = None
) -> Run:
  """Load a trained run from its workdir.

  Args:
    workdir: folder with config.json and checkpoints.
    step: step of the checkpoint. None: the newest one.
    kinds: the classes that the run's script defines, as in mmjax.cli.main.
    average: True for the moving average of the parameters, if the run kept one. None: evaluation.average of the run.
  Raises:
    FileNotFoundError: the folder is not the workdir of a run.
    mmjax.errors.CheckpointError: there is no checkpoint, or none of this step.
    mmjax.errors.ConfigError: the configuration cannot be read, or it has a class that `kinds` lacks.
  """
  workdir = Path(workdir).expanduser()
  experiment = read_experiment(workdir / CONFIG, kinds=kinds)
  # Shard the parameters over the devices of this machine. The mesh of the training may have been another one.
  mesh = make_mesh(dataclasses.replace(experiment.parallel, data=1, fsdp=len(jax.devices()), model=1))
  model, shapes, shardings = parameter_plan(experiment, mesh)
  checkpoints = Checkpoints(workdir / CHECKPOINTS, read_only=True)
  average = experiment.evaluation.average if average is None else average
  params, step = checkpoints.restore_params(shapes, shardings, step, average=average)
  checkpoints.close()
  folder = workdir / TOKENIZER
  columns = [column for each in experiment.by_stream().values() for column in run_columns(each.data).values()]
  texts = any(column.tokenizes for column in columns)
  tokenizer = load_saved(folder) if texts or folder.exists() else None
  image = read_image(workdir / PREPROCESS, image_size(experiment.model))
  adapters, params = params.get(ADAPTERS), with_adapters(experiment, params)
  params = {name: part for name, part in params.items() if name != TERMS}
  fitted = load_columns(workdir / COLUMNS)
  return Run(experiment, workdir, model, params, tokenizer, mesh, step, fitted, image, adapters)
