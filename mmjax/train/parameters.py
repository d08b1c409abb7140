"""The parameters of a run before its first step."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.experiment import Experiment
from mmjax.models.adapters import ADAPTERS, initial_adapters
from mmjax.models.config import init_params
from mmjax.objectives.terms.base import BatchTerm

TERMS = "terms"
"""Entry of the parameters for those that loss terms have besides the model, by the name of the term."""
BALANCE = "balance"
"""Entry of the parameters for the learned log variances of the terms (uncertainty weighting), and of the memory of
GradNorm."""

_ADAPTERS_KEY, _TERMS_KEY = 1, 2  # folded into the key of the parameters


def initial_params(experiment: Experiment, model: nn.Module, key: jax.Array) -> Any:
  """Make the random parameters of the model, and what the run adds: adapters, parameters and log variances of terms."""
  params = init_params(model, key)
  if experiment.adapter.rank:
    adapters = initial_adapters(experiment.adapter, params, jax.random.fold_in(key, _ADAPTERS_KEY))
    params = {**params, ADAPTERS: adapters}
  own = _of_terms(experiment, jax.random.fold_in(key, _TERMS_KEY))
  params = {**params, TERMS: own} if own else params
  if experiment.balance != "uncertainty":
    return params
  return {**params, BALANCE: {term.key: jnp.zeros(()) for term in experiment.objectives}}


def _of_terms(experiment: Experiment, key: jax.Array) -> dict[str, Any]:
  """Parameters that terms have besides the model, by the name of the term."""
  embed_dim = getattr(experiment.model, "embed_dim", 0)
  terms = [term for term in experiment.objectives if isinstance(term, BatchTerm)]
  made = {term.key: term.parameters(jax.random.fold_in(key, place), embed_dim) for place, term in enumerate(terms)}
  return {name: params for name, params in made.items() if params is not None}
