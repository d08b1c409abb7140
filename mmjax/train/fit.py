"""Changes of a script's mesh and batch to this machine and this data, for runs that begin from a checkpoint."""

import dataclasses
import math

import jax
from rich.console import Console

from mmjax.data import make_source
from mmjax.experiment import Experiment
from mmjax.parallel.mesh import ParallelConfig


def fit_here(experiment: Experiment, script: Experiment) -> Experiment:
  """Fit the mesh to the devices, and the batch to the records. Only settings that are still the script's are changed.

  The script of a paper names the paper's machine and its batch. No result depends on the mesh.

  Args:
    experiment: the run.
    script: the experiment of the script, without the command line.
  Returns: the experiment. Each change is printed.
  """
  changes, devices = [], len(jax.devices())
  parallel, run = experiment.parallel, experiment.run
  if parallel == script.parallel and not _fits(parallel, devices):
    parallel = dataclasses.replace(parallel, data=-1, fsdp=math.gcd(parallel.fsdp, devices), model=1)
    changes.append(f"parallel.fsdp {parallel.fsdp} (was {script.parallel.fsdp}): there are {devices} devices")
  if run.batch_size == script.run.batch_size:
    records = sum(len(make_source(each.data, "train")) for each in experiment.by_stream().values())
    step = devices // max(1, parallel.model) * parallel.microbatches
    size = max(step, records // step * step)
    if size < run.batch_size:
      changes.append(f"run.batch_size {size} (was {run.batch_size}): there are {records} training records")
      run = dataclasses.replace(run, batch_size=size)
  for change in changes:
    Console(quiet=jax.process_index() != 0).print(change, highlight=False, soft_wrap=True, markup=False)
  return dataclasses.replace(experiment, parallel=parallel, run=run)


def _fits(parallel: ParallelConfig, devices: int) -> bool:
  rest = parallel.fsdp * parallel.model
  return devices % rest == 0 if parallel.data == -1 else parallel.data * rest == devices
