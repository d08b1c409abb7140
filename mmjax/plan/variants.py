"""Variants of an experiment: another batch, microbatches, mesh or remat policy."""

import dataclasses
from typing import Any, get_args

from mmjax.experiment import Experiment
from mmjax.nn.transformer import Remat

REMAT: tuple[Remat, ...] = get_args(Remat)
TOWERS = ("image", "text")


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
  """Set `remat` on both towers. Towers without this choice are left unchanged."""
  model: Any = experiment.model
  towers: dict[str, Any] = {name: getattr(model, name, None) for name in TOWERS}
  chosen = {n: dataclasses.replace(t, remat=policy) for n, t in towers.items() if hasattr(t, "remat")}
  return dataclasses.replace(experiment, model=dataclasses.replace(model, **chosen))


def remat_of(experiment: Experiment) -> Remat:
  """Remat policy of the tower that recomputes least; "none" if no tower has this choice."""
  towers = (getattr(experiment.model, name, None) for name in TOWERS)
  return min((tower_remat(t) for t in towers if hasattr(t, "remat")), key=REMAT.index, default="none")


def tower_remat(config: Any) -> Remat:
  """Remat policy of a tower; "none" if it does not have this choice."""
  return getattr(config, "remat", "none")


def options(experiment: Experiment, base: Experiment, topology: str = "") -> str:
  """Command-line options that change `base` into `experiment`, with `--topology` if `topology` is given."""
  words = [f"--topology {topology}"] if topology else []
  for name in ("fsdp", "model", "microbatches"):
    value = getattr(experiment.parallel, name)
    words += [f"--parallel.{name} {value}"] if value != getattr(base.parallel, name) else []
  for tower in TOWERS:
    policy = tower_remat(getattr(experiment.model, tower, None))
    words += [f"--model.{tower}.remat {policy}"] if policy != tower_remat(getattr(base.model, tower, None)) else []
  if experiment.run.batch_size != base.run.batch_size:
    words.append(f"--run.batch-size {experiment.run.batch_size}")
  return " ".join(words)


def piece_counts(experiment: Experiment, devices: int) -> list[int]:
  """Numbers of microbatches that divide the rows of a device, in ascending order."""
  shards = devices // experiment.parallel.model
  rows = max(1, experiment.run.batch_size // shards)
  return [count for count in range(1, rows + 1) if rows % count == 0]
