"""Preparation of a run from its experiment: model, mesh, optimiser, shardings and step. Checks of its settings."""

import dataclasses
import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from mmjax.catalogue import KINDS
from mmjax.data.batching import row_shapes
from mmjax.data.columns.base import Shapes
from mmjax.data.features import run_columns
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.errors import ConfigError
from mmjax.experiment import Experiment
from mmjax.kinds import Kind, default, of_base, option_name
from mmjax.models.config import ModelConfig, image_size, towers
from mmjax.models.interleaved import InterleavedConfig
from mmjax.models.protocols import missing
from mmjax.models.sharding import SHARDING_RULES
from mmjax.models.shared_space import tower_of
from mmjax.objectives.terms.base import BatchTerm, ExampleTerm, Term
from mmjax.parallel.mesh import (
  Placement,
  batch_shards,
  check_batch_size,
  make_mesh,
  parameter_shardings,
  parse_placement,
)
from mmjax.parallel.rules import Rules, match_rules, parameter_path
from mmjax.run import TOKENIZER
from mmjax.train.adapters import trained_besides
from mmjax.train.balancing import initial_memory
from mmjax.train.frozen_parts import frozen_parts, with_parts
from mmjax.train.image_tokenizer import with_image_tokenizer
from mmjax.train.numerics import no_losses
from mmjax.train.optimizer import make_optimizer
from mmjax.train.parameters import BALANCE, initial_params
from mmjax.train.state import Params, TrainState, init_state, state_shardings
from mmjax.train.step import Step, make_step
from mmjax.train.teachers import Teachers, make_teachers
from mmjax.train.warm_start import pretrained_state


@dataclasses.dataclass(frozen=True)
class Training:
  """Parts of a run that need no data.

  Attributes:
    experiment: the run.
    model: the linen module.
    mesh: mesh with the axes data, fsdp and model.
    optimizer: the optax transformation.
    shapes: shapes and dtypes of the state.
    shardings: shardings of the state.
    step: (state, batch) -> (state, metrics), jitted.
    fresh: seed -> random state before the first step, jitted.
    kinds: the classes that the script defines.
  """

  experiment: Experiment
  model: nn.Module
  mesh: Mesh
  optimizer: optax.GradientTransformation
  shapes: TrainState
  shardings: TrainState
  step: Step
  fresh: Callable[[Any], TrainState]
  kinds: tuple[type[Kind], ...] = ()

  def initial_state(self) -> TrainState:
    """Make the state before the first step, at random or from pretrained weights, in its shards."""
    seed = self.experiment.run.seed
    check_frozen_norms(self.experiment)
    if self.experiment.pretrained.path is not None:
      start = functools.partial(initial_params, self.experiment, self.model)
      fresh = functools.partial(_state, self.experiment, start, self.optimizer, seed)
      return pretrained_state(fresh, self.experiment, self.shapes, self.shardings)
    parts = frozen_parts(self.experiment, self.shardings, self.kinds)
    state = with_parts(self.fresh(jnp.uint32(seed)), parts)
    return with_image_tokenizer(self.experiment, state, self.shardings, self.kinds)


def prepare(
  experiment: Experiment,
  core: optax.GradientTransformation | None = None,
  devices: Sequence[jax.Device] | None = None,
  kinds: tuple[type[Kind], ...] = (),
) -> Training:
  """Make the parts of a run that need no data.

  Args:
    experiment: the run.
    core: optax transformation that replaces optimizer.algorithm.
    devices: devices of the mesh. They need not be present (`plan` compiles for them). None: all that JAX has.
    kinds: the classes that the script defines. They are needed to read the runs of frozen teachers.
  Raises: ConfigError: batch, mesh, rules or objectives do not fit together.
  """
  config, run = trained_besides(experiment), experiment.run
  mesh = make_mesh(experiment.parallel, devices)
  for name, each in experiment.by_stream().items():
    rows = f"rows of data.streams.{name}" if name else "rows of data.source"
    what = rows if experiment.data.streams else "run.batch_size"
    check_batch_size(each.run.batch_size, mesh, experiment.parallel.microbatches, what=what)
    check_together(each, mesh)
  check_model(experiment)
  model = experiment.model.build()
  start = jax.jit(functools.partial(initial_params, experiment, model))  # is traced once, for all that follows
  params = jax.eval_shape(lambda: start(jax.random.key(0)))
  optimizer = make_optimizer(config, params, run.steps, core)
  check_moves(experiment, params)
  shapes = jax.eval_shape(lambda: _state(experiment, start, optimizer, run.seed))
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
    adapter=experiment.adapter,
    teachers=make_teachers(experiment.objectives, experiment.model, mesh, kinds),
    balance=experiment.balance,
    compression=experiment.compression,
  )
  fresh = jax.jit(functools.partial(_state, experiment, start, optimizer), out_shardings=shardings)
  return Training(experiment, model, mesh, optimizer, shapes, shardings, step, fresh, kinds)


def check_needs(experiment: Experiment, records: Any, tokenizer: Tokenizer | None) -> None:
  """Check that the data has what objectives and towers read.

  Args:
    experiment: the run.
    records: the open source. None: what the configured source gives.
    tokenizer: the tokenizer. None for a run without text.
  Raises: ConfigError: objectives, columns and towers do not fit together. The message names them.
  """
  entries = row_shapes(experiment.data, image_size(experiment.model), records)
  mask, begin = (None, None) if tokenizer is None else (tokenizer.mask_id, tokenizer.begin_id)
  tokens = {
    "mask": (mask, "hides words: set --data.tokenizer.mask-token '<mask>'"),
    "begin": (begin, "begins with a token: set --data.tokenizer.bos-token '<bos>'"),
  }
  for term in experiment.objectives:
    absent = [name for name in term.needs if name not in entries]
    if absent:
      raise ConfigError(
        f"the objective {term.name} reads {absent[0]!r}, which no column of --data.source "
        f"{option_name(type(experiment.data.source))} and --data.columns makes with these settings; there are "
        f"{', '.join(entries)}"
      )
    for name in term.special_tokens:
      token, remedy = tokens[name]
      if token is None:
        raise ConfigError(f"the objective {term.name} {remedy}")
  if tokenizer is not None and tokenizer.pad_id == tokenizer.eos_id:
    _check_padding(experiment)
  _check_images(experiment, entries)
  _check_towers(experiment, entries)


def _check_images(experiment: Experiment, entries: Shapes) -> None:
  """Raise ConfigError if the data has a column of images, and the model no tower that says their size."""
  for name, (shape, _) in entries.items():
    if len(shape) > 1 and 0 in shape and not image_size(experiment.model):
      raise ConfigError(
        f"the column {name!r} makes arrays of shape {shape}, as the model has no tower that takes images: leave it out "
        "of --data.columns, or give the model an image tower"
      )


def _check_padding(experiment: Experiment) -> None:
  """Raise ConfigError if the end token, which is also the padding, would be hidden or never be learned."""
  reasons = [
    f"--model.{name}.mask-padding is on"
    for name, tower in towers(experiment.model).items()
    if hasattr(tower, "vocab_size") and getattr(tower, "mask_padding", True)
  ]
  reasons += [
    f"the objective {term.name} tells padding by this id" for term in experiment.objectives if _by_token(term)
  ]
  if reasons:
    raise ConfigError(
      f"--data.tokenizer.pad-token {experiment.data.tokenizer.pad_token!r} is also the end token, which would be "
      f"hidden with the padding: {reasons[0]}. Name another token of the vocabulary."
    )


def _by_token(term: Term) -> bool:
  """True for a term that may look at single tokens of a text."""
  return not isinstance(term, BatchTerm) and "text" in term.needs


def _check_towers(experiment: Experiment, entries: Shapes) -> None:
  """Raise ConfigError if a tower takes another shape than its column has, or an embedding has no tower."""
  taken = jax.eval_shape(lambda: experiment.model.example(1))
  for name, array in taken.items():
    given = entries.get(name)
    if given is not None and (tuple(given[0]) != array.shape[1:] or np.dtype(given[1]) != array.dtype):
      raise ConfigError(
        f"the column {name!r} gives {np.dtype(given[1])} {list(given[0])} a row, and the model's tower takes "
        f"{array.dtype} {list(array.shape[1:])}: make the settings of --data.columns.{name} and of the tower equal"
      )
  for term in experiment.objectives:
    compared = term.encodes if isinstance(term, BatchTerm) else ()
    read = term.reads if isinstance(term, ExampleTerm) else ()
    for name in (*compared, *read):
      if tower_of(name, list(taken)) is None:
        what = "compares" if name in compared else "reads the encoding of"
        raise ConfigError(
          f"the objective {term.name} {what} {name!r}, for which the model has no tower; it has {', '.join(taken)}"
        )


def check_tokenizers(teachers: Teachers, tokenizer: Tokenizer | None) -> None:
  """Raise ConfigError if a frozen teacher has another tokenizer, so that the same ids are other words."""
  if tokenizer is None:
    return
  from mmjax.interop.run_tokenizer import load_saved  # here, so that other runs need none of it

  modules: Mapping[str, Any] = teachers.modules
  for path, module in modules.items():
    folder = Path(path).expanduser() / TOKENIZER
    saved = load_saved(folder) if folder.is_dir() else None
    known = {getattr(tower, "vocab_size", tokenizer.vocab_size) for tower in towers(module.config).values()}
    if (saved is not None and not tokenizer.same_ids(saved)) or known - {tokenizer.vocab_size}:
      raise ConfigError(
        f"the teacher {path} has another tokenizer than this run: train on the same data with the same data.tokenizer, "
        f"or set --data.tokenizer.path to the teacher's tokenizer.json"
      )


def check_model(experiment: Experiment) -> None:
  """Raise ConfigError if the model lacks a method that an objective needs, or their settings do not fit."""
  model = experiment.model.build()
  for term in experiment.objectives:
    lacking = dict.fromkeys(name for protocol in term.asks for name in missing(model, protocol))
    if lacking:
      having = _models_with(term.asks)
      others = f"choose another model ({', '.join(having)})" if having else "no model of mmjax has it: define one"
      raise ConfigError(
        f"the objective {term.name} ({type(term).__name__}) asks the model for {', '.join(lacking)}, which "
        f"{type(experiment.model).__name__} (--model {option_name(type(experiment.model))}) does not have: {others}, "
        "or remove the objective"
      )
    term.check(experiment.model, run_columns(experiment.data.of_stream(term.stream)))


def _models_with(protocols: Sequence[type]) -> list[str]:
  """Names of the models that come with mmjax, and that satisfy the protocols with the defaults of their settings."""
  models = {option_name(kind): default(kind, "--model").build() for kind in of_base(ModelConfig, KINDS)}
  return [name for name, model in models.items() if not any(missing(model, each) for each in protocols)]


def check_moves(experiment: Experiment, params: Params) -> None:
  """Raise ConfigError if an expression in `moves` of an objective matches no parameter."""
  paths = [parameter_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  for term in experiment.objectives:
    for expression in term.moves:
      rules = [(expression, True), (".*", False)]
      if not any(jax.tree.leaves(match_rules(rules, params, purpose="moves"))):
        near = difflib.get_close_matches(expression, paths, n=1, cutoff=0.3)
        hint = f", such as {near[0]!r}" if near else ""
        raise ConfigError(f"the objective {term.name} moves {expression!r}, which matches no parameter's path{hint}")


def check_together(experiment: Experiment, mesh: Mesh) -> None:
  """Raise ConfigError if rows that a term or a tower needs together do not fit in one microbatch of a device."""
  for name, tower in towers(experiment.model).items():
    if getattr(tower, "batch_statistics", False) and experiment.parallel.microbatches > 1:
      field = "stem_norm" if hasattr(tower, "stem_norm") else "norm"
      raise ConfigError(
        f"model.{name} normalises with the statistics of the global batch, of which a microbatch sees only a part: set "
        f"--parallel.microbatches 1, or --model.{name}.{field} group"
      )
  if experiment.model.counts_codes and experiment.parallel.microbatches > 1:
    raise ConfigError(
      "the model counts the use of its codes over the global batch, of which a microbatch sees only a part: set "
      "--parallel.microbatches 1"
    )
  rows = experiment.run.batch_size // batch_shards(mesh) // experiment.parallel.microbatches
  for term in experiment.objectives:
    if isinstance(term, ExampleTerm) and rows % term.together:
      raise ConfigError(
        f"the objective {term.name} looks at {term.together} rows together, but a microbatch of one device has {rows}: "
        "choose a batch size, microbatches or a group that fit each other"
      )


def check_frozen_norms(experiment: Experiment) -> None:
  """Raise ConfigError if a new run would train a tower from scratch whose norms keep the statistics of a checkpoint."""
  given = experiment.pretrained
  if isinstance(experiment.model, InterleavedConfig):
    return  # its tower is read from elsewhere (mmjax.train.frozen_parts)
  for name, tower in towers(experiment.model).items():
    for field in ("norm", "stem_norm"):
      if getattr(tower, field, None) == "frozen" and (given.path is None or given.into not in ("", name)):
        raise ConfigError(
          f"model.{name}.{field} is 'frozen', which is for published weights, and this tower has none: set "
          f"--pretrained.path, or --model.{name}.{field} group or batch"
        )


def parameter_plan(experiment: Experiment, mesh: Mesh) -> tuple[nn.Module, Params, Params]:
  """Make (model, shapes, shardings) of the parameters, without optimiser or objectives."""
  model = experiment.model.build()
  shapes = jax.eval_shape(lambda: initial_params(experiment, model, jax.random.key(0)))
  return model, shapes, parameter_shardings(placement_rules(experiment), shapes, mesh)


def placement_rules(experiment: Experiment) -> Rules[Placement]:
  """Rules of the placement of parameters: those of the run, then those of all models."""
  return [(e, parse_placement(p)) for e, p in experiment.parallel.placement] + list(SHARDING_RULES)


def _memory(experiment: Experiment) -> Any:
  """Make the memory of the terms and of their balancing before the first step. None if there is none."""
  embed_dim = getattr(experiment.model, "embed_dim", 0)
  kept: dict[str, Any] = {o.key: o.memory(embed_dim) for o in experiment.objectives if isinstance(o, BatchTerm)}
  if experiment.balance == "gradnorm":
    kept[BALANCE] = initial_memory(len(experiment.objectives))
  return {name: memory for name, memory in kept.items() if memory is not None} or None


def _state(
  experiment: Experiment, start: Callable[[Any], Params], optimizer: optax.GradientTransformation, seed: Any
) -> TrainState:
  return init_state(
    start,
    optimizer,
    seed=seed,
    ema=experiment.optimizer.ema_decay > 0,
    memory=_memory(experiment),
    recent_losses=no_losses(experiment.numerics),
  )
