"""From an experiment to a compiled step: the model, the mesh, the optimiser and where everything lies."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mmjax.data.batching import row_shapes
from mmjax.data.tokenizer import Tokenizer
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment
from mmjax.models.build import build, image_size, init_params
from mmjax.models.sharding import SHARDING_RULES
from mmjax.objectives.answer_terms import AnswerText
from mmjax.objectives.image_terms import MaskedBoth
from mmjax.objectives.pair_terms import MomentumContrastive
from mmjax.objectives.term import ExampleTerm
from mmjax.objectives.terms import Contrastive, PairLoss, resolve
from mmjax.objectives.word_terms import Caption, MaskedWords
from mmjax.parallel.mesh import (
  Placement,
  batch_shards,
  check_batch_size,
  make_mesh,
  parameter_shardings,
  parse_placement,
)
from mmjax.parallel.rules import Rules
from mmjax.train.loss import BALANCE
from mmjax.train.numerics import no_losses
from mmjax.train.optimizer import make_optimizer
from mmjax.train.pretrained import pretrained_state
from mmjax.train.state import Params, TrainState, init_state, state_shardings
from mmjax.train.step import Step, make_step


@dataclasses.dataclass(frozen=True)
class Training:
  """What a run is made of, before its first step.

  Attributes:
    model: the linen module.
    mesh: axes data, fsdp, model.
    shapes: the state's shapes and dtypes.
    shardings: where each of its leaves lies.
    step: (state, batch) -> (state, metrics), jitted.
    optimizer: the optax transformation.
  """

  experiment: Experiment
  model: nn.Module
  mesh: Mesh
  optimizer: optax.GradientTransformation
  shapes: TrainState
  shardings: TrainState
  step: Step

  def initial_state(self) -> TrainState:
    """The state before the first step, each leaf made, or read from pretrained weights, where it belongs."""
    fresh = functools.partial(_state, self.experiment, self.model, self.optimizer)
    if self.experiment.pretrained.path is not None:
      return pretrained_state(fresh, self.experiment.pretrained, self.shapes, self.shardings)
    return jax.jit(fresh, out_shardings=self.shardings)()


def prepare(
  experiment: Experiment,
  core: optax.GradientTransformation | None = None,
  devices: Sequence[jax.Device] | None = None,
  losses: Mapping[str, PairLoss] = MappingProxyType({}),
) -> Training:
  """Builds everything that needs no data. Raises ConfigError where batch, mesh and rules do not fit.

  Args:
    experiment: the run.
    core: an optax transformation to use in place of optimizer.algorithm.
    devices: those of the mesh, which need not exist (`plan` compiles for them); all that are here where it is None.
    losses: functions of the script's own that its objectives name.
  """
  config, run = experiment.optimizer, experiment.run
  mesh = make_mesh(experiment.parallel, devices)
  check_batch_size(run.batch_size, mesh, experiment.parallel.microbatches)
  check_together(experiment, mesh)
  model = build(experiment.model)
  params = jax.eval_shape(lambda: _params(experiment, model, jax.random.key(0)))
  optimizer = make_optimizer(config, params, run.steps, core)
  shapes = jax.eval_shape(lambda: _state(experiment, model, optimizer))
  shardings = state_shardings(shapes, placement_rules(experiment), mesh)
  step = make_step(
    model,
    experiment.objectives,
    optimizer,
    config,
    steps=run.steps,
    mesh=mesh,
    microbatches=experiment.parallel.microbatches,
    shardings=shardings,
    losses=_pair_losses(experiment, losses),
    numerics=experiment.numerics,
  )
  return Training(experiment, model, mesh, optimizer, shapes, shardings, step)


def check_needs(experiment: Experiment, features: Sequence[str], tokenizer: Tokenizer) -> None:
  """Raises ConfigError where an objective reads what the data does not have; objective and entry are named."""
  entries = row_shapes(experiment.data, image_size(experiment.model), features)
  for term in experiment.objectives:
    missing = [name for name in term.needs if name not in entries]
    if missing:
      raise ConfigError(
        f"the objective {term.name} reads {missing[0]!r}, which --data.source {experiment.data.source} does not have "
        f"with these settings; it has {', '.join(entries)}"
      )
    if isinstance(term, MaskedWords | MaskedBoth) and tokenizer.mask_id is None:
      raise ConfigError(f"the objective {term.name} hides words: set --data.tokenizer.mask-token '<mask>'")
    if isinstance(term, Caption | AnswerText) and tokenizer.begin_id is None:
      raise ConfigError(f"the objective {term.name} begins with a token: set --data.tokenizer.bos-token '<bos>'")


def check_together(experiment: Experiment, mesh: Mesh) -> None:
  """Rows that a term wants to see together must lie on one device. Raises ConfigError naming the term."""
  rows = experiment.run.batch_size // batch_shards(mesh) // experiment.parallel.microbatches
  for term in experiment.objectives:
    if isinstance(term, ExampleTerm) and rows % term.together:
      raise ConfigError(
        f"the objective {term.name} looks at {term.together} rows together, but a microbatch of one device has {rows}: "
        "choose a batch size, microbatches or a group that fit each other"
      )


def parameter_plan(experiment: Experiment, mesh: Mesh) -> tuple[nn.Module, Params, Params]:
  """(model, shapes, shardings): what using the parameters takes, without optimiser or objectives."""
  model = build(experiment.model)
  shapes = jax.eval_shape(lambda: _params(experiment, model, jax.random.key(0)))
  return model, shapes, parameter_shardings(placement_rules(experiment), shapes, mesh)


def placement_rules(experiment: Experiment) -> Rules[Placement]:
  """The run's own placements first, then those every model has."""
  return [(e, parse_placement(p)) for e, p in experiment.parallel.placement] + list(SHARDING_RULES)


def _pair_losses(experiment: Experiment, own: Mapping[str, PairLoss]) -> dict[str, PairLoss]:
  pairs = [o for o in experiment.objectives if isinstance(o, Contrastive)]
  return resolve(pairs, own, has_bias=getattr(experiment.model, "init_logit_bias", None) is not None)


def _params(experiment: Experiment, model: nn.Module, key: jax.Array) -> Params:
  """The model's random parameters and, where the terms are balanced by uncertainty, their log variances."""
  params = init_params(model, key)
  if experiment.balance == "fixed":
    return params
  return {**params, BALANCE: {term.name: jnp.zeros(()) for term in experiment.objectives}}


def _memory(experiment: Experiment) -> Any:
  """What terms remember from step to step, before the first one; None where none does."""
  momentum = [o for o in experiment.objectives if isinstance(o, MomentumContrastive)]
  model: Any = experiment.model
  return {o.name: o.memory(model.embed_dim) for o in momentum} or None


def _state(experiment: Experiment, model: nn.Module, optimizer: optax.GradientTransformation) -> TrainState:
  return init_state(
    lambda key: _params(experiment, model, key),
    optimizer,
    seed=experiment.run.seed,
    ema=experiment.optimizer.ema_decay > 0,
    memory=_memory(experiment),
    recent_losses=no_losses(experiment.numerics),
  )
