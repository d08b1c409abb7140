"""The training step: forward pass, weighted sum of the terms, gradient and update, for any model on any mesh."""

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Key

from mmjax.models.adapters import merged
from mmjax.nn.channel_norm import moved_statistics
from mmjax.nn.int8 import trained_for_int8
from mmjax.objectives.terms.base import Term
from mmjax.parallel.mesh import batch_sharding, replicated
from mmjax.parallel.rules import parameter_path
from mmjax.settings import (
  NO_ADAPTERS,
  NO_COMPRESSION,
  AdapterConfig,
  CompressionConfig,
  NumericsConfig,
  OptimizerConfig,
)
from mmjax.train.balancing import APART, Balance, balanced_gradient, plain_gradient
from mmjax.train.compression import pruned, rounded_inputs, zero_where
from mmjax.train.loss import Aux, has_streams, make_loss
from mmjax.train.numerics import judge
from mmjax.train.optimizer import learning_rate, trainable, update_ema
from mmjax.train.state import Params, TrainState
from mmjax.train.teachers import NO_TEACHERS, Teachers
from mmjax.types import Batch

Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Step:
  """step(state, batch) -> (state, metrics). It is compiled at the first call. The buffers of the state are donated.

  Attributes:
    jitted: (state, batch, parameters of frozen teachers) -> (state, metrics).
    teachers: the frozen teachers. They are loaded at the first call.
  """

  jitted: Any
  teachers: Teachers

  def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    return self.jitted(state, batch, self.teachers.params)

  def lower(self, state: TrainState, batch: Any) -> Any:
    """Lower the step for compilation. The arguments may be shapes."""
    return self.jitted.lower(state, batch, self.teachers.placed_shapes)


def make_step(
  model: Any,
  objectives: Sequence[Term],
  optimizer: optax.GradientTransformation,
  config: OptimizerConfig,
  *,
  steps: int,
  mesh: Mesh,
  microbatches: int,
  shardings: TrainState,
  numerics: NumericsConfig,
  adapter: AdapterConfig = NO_ADAPTERS,
  teachers: Teachers = NO_TEACHERS,
  balance: Balance = "fixed",
  compression: CompressionConfig = NO_COMPRESSION,
) -> Step:
  """Make the training step of a model and its objectives.

  A step whose loss or gradient norm is not finite does not change the state. metrics["bad_parameters"] then marks the
  parameters (in tree order) whose gradient has no finite norm. A spike of the loss does not change the state either,
  unless numerics.on_spike is "log".

  Args:
    model: a linen module with the methods that the objectives ask for; its `config` is a ModelConfig.
    objectives: the weighted terms of the loss.
    optimizer: the optimiser, from make_optimizer.
    config: settings of the optimiser (freezing, moving average, learning rate for the log).
    steps: number of optimiser steps of the whole run.
    mesh: mesh with the axes data, fsdp and model.
    microbatches: number of microbatches per device.
    shardings: shardings of the state.
    numerics: settings for losses that are not finite and for spikes.
    adapter: settings of the adapters, which the model's kernels get before it is applied.
    teachers: the frozen teachers of the objectives.
    balance: weighting of the terms, as in Experiment.
    compression: pruning of the weights after each update, and rounding of those that the model is applied with.
  """
  apart = balance in APART
  schedule = learning_rate(config, steps)
  loss_of = make_loss(model, objectives, mesh=mesh, microbatches=microbatches, teachers=teachers.modules, apart=apart)

  def loss_fn(params: Params, state: TrainState, batch: Batch, frozen: Any) -> tuple[Float[Array, "..."], Aux]:
    params = jax.tree.map(lambda p, t: p if t else jax.lax.stop_gradient(p), params, trainable(config, params))
    if adapter.rank:
      params = merged(adapter, params)
      state = state.replace(ema=None if state.ema is None else merged(adapter, state.ema))
    if compression.quantize != "none":
      params = trained_for_int8(params, rounded_inputs(compression, model))
    return loss_of(params, state, batch, batch_keys(state.rng, state.step, batch), frozen)

  gradient = (
    balanced_gradient([term.key for term in objectives], balance, shardings.params)
    if apart
    else plain_gradient(shardings.params)
  )

  def step(state: TrainState, batch: Batch, frozen: Any) -> tuple[TrainState, Metrics]:
    loss, (metrics, memory, seen), grads = gradient(loss_fn, state, batch, frozen)
    squares = jnp.stack([jnp.square(g).sum() for g in jax.tree.leaves(grads)])
    grad_norm = jnp.sqrt(squares.sum())
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    params = model.config.clamped(moved_statistics(params, seen, trainable(config, params)))
    params = pruned(compression, params, state.params, state.step, steps)
    ema = None if state.ema is None else update_ema(state.ema, params, config.ema_decay, state.step)
    ema = None if ema is None else zero_where(compression, ema, params)
    stepped = state.replace(step=state.step + 1, params=params, opt_state=opt_state, ema=ema, memory=memory)
    applied, recent, verdict = judge(numerics, loss, grad_norm, state.recent_losses)
    stepped = stepped.replace(recent_losses=recent)
    kept = jax.tree.map(lambda new, old: jnp.where(applied, new, old), stepped, state)
    with jax.numpy_dtype_promotion("standard"):
      rate = jnp.asarray(schedule(state.step), jnp.float32)
    metrics |= {
      "loss": loss,
      "grad_norm": grad_norm,
      "learning_rate": rate,
      "bad_parameters": ~jnp.isfinite(squares),
      **verdict,
    }
    return kept, metrics

  jitted = jax.jit(
    step,
    donate_argnums=0,
    in_shardings=(shardings, batch_sharding(mesh), teachers.shardings),
    out_shardings=(shardings, replicated(mesh)),
  )
  return Step(jitted, teachers)


def batch_keys(rng: Array, step: Array, batch: Batch) -> Any:
  """Make one key per row. With streams, {stream: keys}. The rows of data.source have those of a flat batch."""
  if not has_streams(batch):
    return example_keys(rng, step, batch["index"])
  rngs = {name: jax.random.fold_in(jax.random.wrap_key_data(rng), zlib.crc32(name.encode())) for name in batch}
  return {
    name: example_keys(jax.random.key_data(rngs[name]) if name else rng, step, rows["index"])
    for name, rows in batch.items()
  }


def example_keys(rng: Array, step: Array, index: Array) -> Key[Array, "batch"]:
  """Make one key per example. It depends only on the seed, the step and the index of the example."""
  key = jax.random.fold_in(jax.random.wrap_key_data(rng), step)
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def first_bad_parameter(params: Params, flags: Any) -> str | None:
  """Return the path of the first parameter, in tree order, that `bad_parameters` marks. None if there is none."""
  paths = [parameter_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  return next((path for path, bad in zip(paths, flags, strict=True) if bad), None)
