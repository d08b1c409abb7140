"""From an experiment to a compiled step: the model, the mesh, the optimiser and where everything lies."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from mmjax.data.batching import row_shapes
from mmjax.data.columns.base import Shapes
from mmjax.data.tokenizer import Tokenizer
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment
from mmjax.kinds import Kind, option_name
from mmjax.models.config import image_size, init_params
from mmjax.models.protocols import missing
from mmjax.models.sharding import SHARDING_RULES
from mmjax.models.shared_space import tower_of
from mmjax.objectives.terms.base import BatchTerm, ExampleTerm
from mmjax.parallel.mesh import (
  Placement,
  batch_shards,
  check_batch_size,
  make_mesh,
  parameter_shardings,
  parse_placement,
)
from mmjax.parallel.rules import Rules, match_rules, parameter_path
from mmjax.train.loss import BALANCE
from mmjax.train.numerics import no_losses
from mmjax.train.optimizer import make_optimizer
from mmjax.train.pretrained import pretrained_state
from mmjax.train.state import Params, TrainState, init_state, state_shardings
from mmjax.train.step import Step, make_step
from mmjax.train.teachers import Teachers, make_teachers


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
    fresh: the random state before the first step, a jitted function of the seed.
  """

  experiment: Experiment
  model: nn.Module
  mesh: Mesh
  optimizer: optax.GradientTransformation
  shapes: TrainState
  shardings: TrainState
  step: Step
  fresh: Callable[[Any], TrainState]

  def initial_state(self) -> TrainState:
    """The state before the first step, each leaf made, or read from pretrained weights, where it belongs."""
    seed = self.experiment.run.seed
    if self.experiment.pretrained.path is not None:
      fresh = functools.partial(_state, self.experiment, self.model, self.optimizer, seed)
      return pretrained_state(fresh, self.experiment.pretrained, self.shapes, self.shardings)
    return self.fresh(jnp.uint32(seed))


def prepare(
  experiment: Experiment,
  core: optax.GradientTransformation | None = None,
  devices: Sequence[jax.Device] | None = None,
  kinds: tuple[type[Kind], ...] = (),
) -> Training:
  """Builds everything that needs no data. Raises ConfigError where batch, mesh and rules do not fit.

  Args:
    experiment: the run.
    core: an optax transformation to use in place of optimizer.algorithm.
    devices: those of the mesh, which need not exist (`plan` compiles for them); all that are here where it is None.
    kinds: classes of the script's own, for reading the runs of frozen teachers.
  """
  config, run = experiment.optimizer, experiment.run
  mesh = make_mesh(experiment.parallel, devices)
  check_batch_size(run.batch_size, mesh, experiment.parallel.microbatches)
  check_together(experiment, mesh)
  check_model(experiment)
  model = experiment.model.build()
  params = jax.eval_shape(lambda: _params(experiment, model, jax.random.key(0)))
  optimizer = make_optimizer(config, params, run.steps, core)
  check_moves(experiment, params)
  shapes = jax.eval_shape(lambda: _state(experiment, model, optimizer, run.seed))
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
    numerics=experiment.numerics,
    teachers=make_teachers(experiment.objectives, experiment.model, mesh, kinds),
  )
  fresh = jax.jit(functools.partial(_state, experiment, model, optimizer), out_shardings=shardings)
  return Training(experiment, model, mesh, optimizer, shapes, shardings, step, fresh)


def check_needs(experiment: Experiment, records: Any, tokenizer: Tokenizer | None) -> None:
  """Raises ConfigError where objectives, columns and towers do not fit. The sentence names them."""
  entries = row_shapes(experiment.data, image_size(experiment.model), records)
  mask, begin = (None, None) if tokenizer is None else (tokenizer.mask_id, tokenizer.begin_id)
  tokens = {
    "mask": (mask, "hides words: set --data.tokenizer.mask-token '<mask>'"),
    "begin": (begin, "begins with a token: set --data.tokenizer.bos-token '<bos>'"),
  }
  for term in experiment.objectives:
    missing = [name for name in term.needs if name not in entries]
    if missing:
      raise ConfigError(
        f"the objective {term.name} reads {missing[0]!r}, which --data.source "
        f"{option_name(type(experiment.data.source))} does not have with these settings; it has {', '.join(entries)}"
      )
    for name in term.special_tokens:
      token, remedy = tokens[name]
      if token is None:
        raise ConfigError(f"the objective {term.name} {remedy}")
  _check_towers(experiment, entries)


def _check_towers(experiment: Experiment, entries: Shapes) -> None:
  """Raises ConfigError where a tower takes another shape than its column gives, or an embedding has no tower."""
  taken = jax.eval_shape(lambda: experiment.model.example(1))
  for name, array in taken.items():
    given = entries.get(name)
    if given is not None and (tuple(given[0]) != array.shape[1:] or np.dtype(given[1]) != array.dtype):
      raise ConfigError(
        f"the column {name!r} gives {np.dtype(given[1])} {list(given[0])} a row, and the model's tower takes "
        f"{array.dtype} {list(array.shape[1:])}: make the settings of --data.columns.{name} and of the tower equal"
      )
  for term in experiment.objectives:
    for name in term.between if isinstance(term, BatchTerm) else ():
      if tower_of(name, list(taken)) is None:
        raise ConfigError(
          f"the objective {term.name} compares {name!r}, for which the model has no tower; it has {', '.join(taken)}"
        )


def check_tokenizers(teachers: Teachers, tokenizer: Tokenizer | None) -> None:
  """Raises ConfigError where a teacher that is a run was trained with another tokenizer: ids would mean other words."""
  if tokenizer is None:
    return
  for path, module in teachers.modules.items():
    folder = Path(path).expanduser() / "tokenizer"
    text: Any = getattr(module, "config", None)
    size = getattr(getattr(text, "text", None), "vocab_size", tokenizer.vocab_size)
    if (folder.is_dir() and not tokenizer.same_ids(Tokenizer.load(folder))) or size != tokenizer.vocab_size:
      raise ConfigError(
        f"the teacher {path} has another tokenizer than this run: train on the same data with the same data.tokenizer, "
        f"or set --data.tokenizer.path to the teacher's tokenizer.json"
      )


def check_model(experiment: Experiment) -> None:
  """Raises ConfigError where an objective asks the model for what it lacks. The sentence names both."""
  model = experiment.model.build()
  for term in experiment.objectives:
    lacking = [name for protocol in term.asks for name in missing(type(model), protocol)]
    if lacking:
      raise ConfigError(
        f"the objective {term.name} ({type(term).__name__}) asks the model for {', '.join(lacking)}, which "
        f"{type(experiment.model).__name__} (--model {option_name(type(experiment.model))}) does not have: choose "
        "another model, or take the objective out"
      )


def check_moves(experiment: Experiment, params: Params) -> None:
  """Raises ConfigError where an expression of an objective's `moves` matches no parameter."""
  paths = [parameter_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  for term in experiment.objectives:
    for expression in term.moves:
      rules = [(expression, True), (".*", False)]
      if not any(jax.tree.leaves(match_rules(rules, params, purpose="moves"))):
        near = difflib.get_close_matches(expression, paths, n=1, cutoff=0.3)
        hint = f", such as {near[0]!r}" if near else ""
        raise ConfigError(f"the objective {term.name} moves {expression!r}, which no parameter's path has{hint}")


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
  model = experiment.model.build()
  shapes = jax.eval_shape(lambda: _params(experiment, model, jax.random.key(0)))
  return model, shapes, parameter_shardings(placement_rules(experiment), shapes, mesh)


def placement_rules(experiment: Experiment) -> Rules[Placement]:
  """The run's own placements first, then those every model has."""
  return [(e, parse_placement(p)) for e, p in experiment.parallel.placement] + list(SHARDING_RULES)


def _params(experiment: Experiment, model: nn.Module, key: jax.Array) -> Params:
  """The model's random parameters and, where the terms are balanced by uncertainty, their log variances."""
  params = init_params(model, key)
  if experiment.balance == "fixed":
    return params
  return {**params, BALANCE: {term.name: jnp.zeros(()) for term in experiment.objectives}}


def _memory(experiment: Experiment) -> Any:
  """The memory of the terms before the first step; None where no term has one."""
  embed_dim = getattr(experiment.model, "embed_dim", 0)
  kept = {o.name: o.memory(embed_dim) for o in experiment.objectives if isinstance(o, BatchTerm)}
  return {name: memory for name, memory in kept.items() if memory is not None} or None


def _state(experiment: Experiment, model: nn.Module, optimizer: optax.GradientTransformation, seed: Any) -> TrainState:
  return init_state(
    lambda key: _params(experiment, model, key),
    optimizer,
    seed=seed,
    ema=experiment.optimizer.ema_decay > 0,
    memory=_memory(experiment),
    recent_losses=no_losses(experiment.numerics),
  )
