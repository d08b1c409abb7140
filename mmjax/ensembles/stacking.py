"""Stacking: a logistic regression on what several classifiers say about examples that they have not seen."""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from mmjax.ensembles.alike import check_inputs, own_params
from mmjax.ensembles.combining import as_ensemble, grouped, stacked
from mmjax.ensembles.scoring import Predictions
from mmjax.errors import ConfigError
from mmjax.evaluate.calibration import log_softmax
from mmjax.evaluate.probe import Features, choose_strength, fit_linear
from mmjax.models.ensemble import EnsembleConfig
from mmjax.run import Run


def stack(
  runs: Sequence[Run], held_out: Sequence[Predictions], workdir: str | Path, *, strength: float | None = None
) -> Run:
  """Combine classifiers by multinomial logistic regression on their log-probabilities (Wolpert 1992; Ting and Witten
  1999, section 3).

  Args:
    runs: the classifiers.
    held_out: for each classifier, its scores for examples that it was not trained on (`out_of_sample`, or `predictions`
      for another split). The examples that all have are used.
    workdir: folder of the ensemble. `save_run` writes it.
    strength: weight of the L2 penalty. None: chosen on a fifth of the examples.
  Returns: a run whose model is the ensemble. It is not saved.
  Raises: ConfigError: a classifier has seen some of the examples, or the runs do not fit together.
  """
  check_inputs(runs)
  if len(held_out) != len(runs):
    raise ConfigError(f"there are predictions of {len(held_out)} models for {len(runs)} runs: give one for each")
  _check_unseen(runs, held_out)
  places = grouped([run.experiment.model for run in runs])
  ordered = [runs[place] for place in places]
  features = _features([held_out[place] for place in places])
  if len(np.unique(features.labels)) < len(runs[0].classes):
    raise ConfigError("stacking needs held-out examples of every class: some have none")
  probe = fit_linear(features, choose_strength(features) if strength is None else strength)
  model = EnsembleConfig(models=tuple(run.experiment.model for run in ordered), combine="stack")
  params = stacked(model, [own_params(run) for run in ordered])
  layer = {"kernel": jnp.asarray(probe.kernel, jnp.float32), "bias": jnp.asarray(probe.bias, jnp.float32)}
  params["stack_projection"] = layer
  return as_ensemble(runs[0], model, params, workdir, step=max(run.step for run in runs))


def _check_unseen(runs: Sequence[Run], held_out: Sequence[Predictions]) -> None:
  """Raise ConfigError if a model was trained on examples: it is right there more often than anywhere else."""
  for run, found in zip(runs, held_out, strict=True):
    if found.seen.any():
      first = found.ids[int(np.flatnonzero(found.seen)[0])]
      raise ConfigError(
        f"the run in {run.workdir} was trained on {int(found.seen.sum())} of the {len(found.ids)} examples, such as "
        f"{first}: stacking would trust what it has learned by heart. Pass out_of_sample(run), or predictions for "
        "another split"
      )


def _features(held_out: Sequence[Predictions]) -> Features:
  """Log-probabilities of all models side by side, for the examples that all of them have."""
  shared = set.intersection(*(set(found.ids) for found in held_out))
  if not shared:
    raise ConfigError("no example was held out from all of the models: their predictions have no example in common")
  order = [identity for identity in held_out[0].ids if identity in shared]
  rows, labels = [], held_out[0].labels
  for found in held_out:
    place = {identity: number for number, identity in enumerate(found.ids)}
    chosen = found.take(np.array([place[identity] for identity in order]))
    rows.append(log_softmax(chosen.logits))
    labels = chosen.labels
  return Features(np.concatenate(rows, axis=1), labels)
