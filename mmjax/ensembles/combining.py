"""Ensembles of runs that answer together: deep and snapshot ensembles, and voting."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from mmjax.ensembles.alike import check_inputs, own_params, together
from mmjax.errors import CheckpointError, ConfigError
from mmjax.evaluate.calibration import best_temperature
from mmjax.kinds import Kind
from mmjax.loading import load_run
from mmjax.models.ensemble import EnsembleConfig
from mmjax.run import CHECKPOINTS, Run
from mmjax.train.checkpoint import Checkpoints


def combine(
  runs: Sequence[Run],
  workdir: str | Path,
  *,
  rule: Literal["mean", "vote"] = "mean",
  weights: Sequence[float] = (),
  temperature: float = 1.0,
) -> Run:
  """Combine runs into one that encodes, classifies, predicts, retrieves and answers (Lakshminarayanan et al. 2017).

  Embeddings are those of the members side by side, so that cosines are the means of the members' cosines. Members of
  equal configuration are computed together.

  Args:
    runs: runs of the same inputs, on equal data. Their models may differ.
    workdir: folder of the ensemble. `save_run` writes it.
    rule: "mean" of the probabilities, or "vote" for the likeliest class.
    weights: weight of each run. Only their ratios matter. Empty: equal weights.
    temperature: the combined scores are divided by it.
  Returns: a run whose model is the ensemble. It is not saved.
  Raises: ConfigError: the runs do not fit together, or a weight or the temperature is out of range.
  """
  check_inputs(runs)
  places = grouped([run.experiment.model for run in runs])
  ordered = [runs[place] for place in places]
  if weights and len(weights) != len(runs):
    raise ConfigError(f"there are {len(weights)} weights for {len(runs)} runs: give one for each")
  try:
    model = EnsembleConfig(
      models=tuple(run.experiment.model for run in ordered),
      combine=rule,
      weights=tuple(weights[place] for place in places) if weights else (),
      temperature=temperature,
    )
  except ValueError as error:  # from the check of a field
    raise ConfigError(f"the runs make no ensemble: {error}") from error
  params = stacked(model, [own_params(run) for run in ordered])
  return as_ensemble(runs[0], model, params, workdir, step=max(run.step for run in runs))


def as_ensemble(run: Run, model: EnsembleConfig, params: Any, workdir: str | Path, *, step: int) -> Run:
  """Make the run of an ensemble.

  Args:
    run: a run whose data and objectives it has.
    model: the ensemble.
    params: its parameters.
    workdir: its folder.
    step: number of its checkpoint.
  """
  experiment = dataclasses.replace(run.experiment, model=model)
  return together(run, Path(workdir), experiment=experiment, model=model.build(), params=params, step=step)


def stacked(model: EnsembleConfig, params: Sequence[Any]) -> dict[str, Any]:
  """Parameters of an ensemble from those of its members, in their order."""
  found, first = {}, 0
  for name, (_, count) in zip(model.names, model.groups, strict=True):
    found[name] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params[first : first + count])
    first += count
  return found


def members(run: Run) -> list[Run]:
  """Runs of the members of an ensemble. They have the workdir of the ensemble, and are not saved."""
  model: Any = run.experiment.model
  found = []
  for name, (config, count) in zip(model.names, model.groups, strict=True):
    experiment = dataclasses.replace(run.experiment, model=config)
    for number in range(count):
      params = jax.tree.map(lambda leaf, n=number: leaf[n], run.params[name])
      found.append(dataclasses.replace(run, experiment=experiment, model=config.build(), params=params))
  return found


def snapshots(
  workdir: str | Path, target: str | Path, *, steps: Sequence[int] = (), kinds: Sequence[type[Kind]] = ()
) -> Run:
  """Combine checkpoints of one run: a snapshot ensemble (Huang et al. 2017).

  Train with optimizer.cycles=M, run.save_every=STEPS/M and run.keep_last=M, so that each checkpoint is at the end of
  a cycle of the learning rate.

  Args:
    workdir: folder of the run.
    target: folder of the ensemble. `save_run` writes it.
    steps: steps of the checkpoints. Empty: all that there are.
    kinds: the classes that the run's script defines.
  Raises: CheckpointError: there are fewer than two checkpoints.
  """
  checkpoints = Checkpoints(Path(workdir).expanduser() / CHECKPOINTS, read_only=True)
  known = checkpoints.steps
  checkpoints.close()
  chosen = list(steps) or known
  if len(chosen) < 2:
    raise CheckpointError(f"{workdir} has checkpoints of the steps {known}: an ensemble of them needs two or more")
  return combine([load_run(workdir, step=step, kinds=kinds, average=False) for step in chosen], target)


def calibrated(
  run: Run, logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"], workdir: str | Path
) -> Run:
  """Give a classifier the temperature that makes its probabilities fit held-out examples best (Guo et al. 2017).

  Its accuracy does not change. A run that is no ensemble becomes an ensemble of one member.

  Args:
    run: a classifier.
    logits: scores of its classes for held-out examples, which it was not trained on.
    labels: their classes.
    workdir: folder of the result. `save_run` writes it.
  """
  factor, model = best_temperature(logits, labels), run.experiment.model
  if not isinstance(model, EnsembleConfig):
    return combine([run], workdir, temperature=factor)
  changed = dataclasses.replace(model, temperature=model.temperature * factor)
  return as_ensemble(run, changed, run.params, workdir, step=run.step)


def grouped(models: Sequence[Any]) -> list[int]:
  """Places of the models, with those of equal configuration together."""
  kinds = list(dict.fromkeys(models))
  return sorted(range(len(models)), key=lambda place: kinds.index(models[place]))
