"""The one training step: forward, weighted sum of objectives, gradient, update, for any model on any mesh."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Key

from mmjax.objectives.terms.base import Term
from mmjax.parallel.mesh import batch_sharding, replicated
from mmjax.parallel.rules import parameter_path
from mmjax.train.loss import make_loss
from mmjax.train.numerics import NumericsConfig, judge
from mmjax.train.optimizer import OptimizerConfig, learning_rate, trainable, update_ema
from mmjax.train.state import Params, TrainState
from mmjax.train.teachers import NO_TEACHERS, Teachers
from mmjax.types import Batch

Metrics = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Step:
  """step(state, batch) -> (state, metrics), compiled when it is first called. The state's buffers are donated.

  Attributes:
    jitted: (state, batch, parameters of frozen teachers) -> (state, metrics).
    teachers: the frozen teachers; they are loaded when the step is first called.
  """

  jitted: Any
  teachers: Teachers

  def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
    return self.jitted(state, batch, self.teachers.params)

  def lower(self, state: TrainState, batch: Any) -> Any:
    """The step for arguments that may be shapes, ready to be compiled."""
    return self.jitted.lower(state, batch, self.teachers.placed_shapes)


def make_step(
  model: nn.Module,
  objectives: Sequence[Term],
  optimizer: optax.GradientTransformation,
  config: OptimizerConfig,
  *,
  steps: int,
  mesh: Mesh,
  microbatches: int,
  shardings: TrainState,
  numerics: NumericsConfig,
  teachers: Teachers = NO_TEACHERS,
) -> Step:
  """The training step of a model and its objectives.

  A step whose loss or gradient norm is not finite leaves the state as it was; metrics["bad_parameters"] then marks the
  parameters (in tree order) whose gradient has no finite norm. So does one whose loss jumps, unless that is only
  logged.

  Args:
    model: a linen module; its methods are those that the objectives ask for.
    objectives: the weighted terms of the loss.
    optimizer: what make_optimizer gave.
    config: the optimiser's fields (freezing, averaging, the schedule for the log).
    steps: optimiser steps in the whole run.
    mesh: axes data, fsdp, model.
    microbatches: pieces in which each device's rows go through the encoders.
    shardings: where the state lies.
    numerics: what a jump of the loss is, and whether the update is made all the same.
    teachers: the frozen models that objectives learn from.
  """
  schedule = learning_rate(config, steps)
  loss_of = make_loss(model, objectives, mesh=mesh, microbatches=microbatches, teachers=teachers.modules)

  def loss_fn(
    params: Params, state: TrainState, batch: Batch, frozen: Any
  ) -> tuple[Float[Array, ""], tuple[Metrics, Any]]:
    params = jax.tree.map(lambda p, t: p if t else jax.lax.stop_gradient(p), params, trainable(config, params))
    return loss_of(params, state, batch, example_keys(state.rng, state.step, batch["index"]), frozen)

  def step(state: TrainState, batch: Batch, frozen: Any) -> tuple[TrainState, Metrics]:
    (loss, (metrics, memory)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, state, batch, frozen)
    grads = jax.lax.with_sharding_constraint(grads, shardings.params)  # each device goes on with its own part
    squares = jnp.stack([jnp.square(g).sum() for g in jax.tree.leaves(grads)])
    grad_norm = jnp.sqrt(squares.sum())
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = None if state.ema is None else update_ema(state.ema, params, config.ema_decay, state.step)
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


def example_keys(rng: Array, step: Array, index: Array) -> Key[Array, "batch"]:
  """One key per example, a function of (seed, step, example index) and of nothing else."""
  key = jax.random.fold_in(jax.random.wrap_key_data(rng), step)
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def first_bad_parameter(params: Params, flags: Any) -> str | None:
  """The path of the first parameter that `bad_parameters` marks, in tree order."""
  paths = [parameter_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  return next((path for path, bad in zip(paths, flags, strict=True) if bad), None)
