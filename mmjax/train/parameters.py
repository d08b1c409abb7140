"""The parameters of a run before its first step."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.experiment import Experiment
from mmjax.models.config import init_params

BALANCE = "balance"
"""Entry of the parameters for the learned log variances of the terms (uncertainty weighting)."""


def initial_params(experiment: Experiment, model: nn.Module, key: jax.Array) -> Any:
  """Make the random parameters of the model and, with uncertainty weighting, the log variances of the terms."""
  params = init_params(model, key)
  if experiment.balance == "fixed":
    return params
  return {**params, BALANCE: {term.key: jnp.zeros(()) for term in experiment.objectives}}
