"""The parameters of a run before its first step."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.experiment import Experiment
from mmjax.models.adapters import ADAPTERS, initial_adapters
from mmjax.models.config import init_params

BALANCE = "balance"
"""Entry of the parameters for the learned log variances of the terms (uncertainty weighting), and of the memory of
GradNorm."""


_ADAPTERS_KEY = 1  # folded into the key of the parameters


def initial_params(experiment: Experiment, model: nn.Module, key: jax.Array) -> Any:
  """Make the random parameters of the model, and what the run adds: adapters, and log variances of the terms."""
  params = init_params(model, key)
  if experiment.adapter.rank:
    adapters = initial_adapters(experiment.adapter, params, jax.random.fold_in(key, _ADAPTERS_KEY))
    params = {**params, ADAPTERS: adapters}
  if experiment.balance != "uncertainty":
    return params
  return {**params, BALANCE: {term.key: jnp.zeros(()) for term in experiment.objectives}}
