"""Variants of an experiment: another batch, microbatches, mesh or remat policy."""

import dataclasses
from typing import Any, get_args

from mmjax.experiment import Experiment
from mmjax.models.config import towers, with_towers
from mmjax.nn.transformer import Remat

REMAT: tuple[Remat, ...] = get_args(Remat)


def with_batch(experiment: Experiment, size: int) -> Experiment:
  """Set the size of the global batch."""
  return dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, batch_size=size))


def with_microbatches(experiment: Experiment, count: int) -> Experiment:
  """Set the number of microbatches. The batch stays the same."""
  return dataclasses.replace(experiment, parallel=dataclasses.replace(experiment.parallel, microbatches=count))


def with_mesh(experiment: Experiment, *, fsdp: int, model: int) -> Experiment:
  """Set the axes fsdp and model of the mesh. The data axis takes the remaining devices."""
  parallel = dataclasses.replace(experiment.parallel, data=-1, fsdp=fsdp, model=model)
  return dataclasses.replace(experiment, parallel=parallel)


def with_remat(experiment: Experiment, policy: Remat) -> Experiment:
  """Set `remat` on all towers. Those without this choice, and the members of an ensemble, are left unchanged."""
  found = {} if hasattr(experiment.model, "models") else towers(experiment.model)
  chosen = {name: dataclasses.replace(tower, remat=policy) for name, tower in found.items() if hasattr(tower, "remat")}
  return dataclasses.replace(experiment, model=with_towers(experiment.model, chosen)) if chosen else experiment


def remat_of(experiment: Experiment) -> Remat:
  """Remat policy of the tower that recomputes least; "none" if no tower has this choice."""
  found = towers(experiment.model).values()
  return min((tower_remat(tower) for tower in found if hasattr(tower, "remat")), key=REMAT.index, default="none")


def tower_remat(config: Any) -> Remat:
  """Remat policy of a tower; "none" if it does not have this choice."""
  return getattr(config, "remat", "none")


def options(experiment: Experiment, base: Experiment, topology: str = "") -> str:
  """Command-line options that change `base` into `experiment`, with `--topology` if `topology` is given."""
  words = [f"--topology {topology}"] if topology else []
  for name in ("fsdp", "model", "microbatches"):
    value = getattr(experiment.parallel, name)
    words += [f"--parallel.{name} {value}"] if value != getattr(base.parallel, name) else []
  before, path = towers(base.model), "model.towers" if hasattr(base.model, "towers") else "model"
  for name, tower in towers(experiment.model).items():
    policy = tower_remat(tower)
    words += [f"--{path}.{name}.remat {policy}"] if policy != tower_remat(before.get(name)) else []
  if experiment.run.batch_size != base.run.batch_size:
    words.append(f"--run.batch-size {experiment.run.batch_size}")
  return " ".join(words)


def piece_counts(experiment: Experiment, devices: int) -> list[int]:
  """Numbers of microbatches that divide the rows of a device, in ascending order."""
  shards = devices // experiment.parallel.model
  rows = max(1, experiment.run.batch_size // shards)
  return [count for count in range(1, rows + 1) if rows % count == 0]
