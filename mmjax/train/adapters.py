"""Adapters in a run: what is trained, and the parameters that a run is evaluated with."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax

from mmjax.experiment import Experiment
from mmjax.models.adapters import merged
from mmjax.settings import OptimizerConfig


def with_adapters(experiment: Experiment, params: Mapping[str, Any]) -> Any:
  """`merged`, compiled, for the parameters of a run that is evaluated."""
  return jax.jit(functools.partial(merged, experiment.adapter))(params) if experiment.adapter.rank else params


def trained_besides(experiment: Experiment) -> OptimizerConfig:
  """Settings of the optimiser. The model names frozen parameters; adapters freeze all but `adapter.trained`."""
  config, adapter = experiment.optimizer, experiment.adapter
  config = dataclasses.replace(config, frozen=(*config.frozen, *experiment.model.frozen))
  if not adapter.rank:
    return config
  others = "|".join(f"(?:{expression})" for expression in ("^adapters/", "^balance/", "^terms/", *adapter.trained))
  return dataclasses.replace(config, frozen=(*config.frozen, f"^(?!.*(?:{others}))"))
