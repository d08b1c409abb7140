"""The training state, and the shardings of its parts."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Int, UInt32

from mmjax.parallel.mesh import Placement, parameter_shardings, replicated
from mmjax.parallel.rules import Rules, parameter_path

Params = Any


class TrainState(flax.struct.PyTreeNode):
  """State that a step reads and writes.

  Attributes:
    step: number of optimiser steps taken.
    params: parameters of the model, float32.
    opt_state: state of the optimiser.
    ema: moving average of the parameters, or None.
    rng: key data. Step s uses fold_in(rng, s), so that a resumed run has the same random numbers.
    memory: values that loss terms keep from step to step (queues), by the name of the term. None: no term keeps any.
    recent_losses: float32 [window], NaN before there are losses. Spikes of the loss are detected with them.
  """

  step: Int[Array, ""]
  params: Params
  opt_state: Any
  ema: Params | None
  rng: UInt32[Array, "..."]
  memory: Any = None
  recent_losses: Any = None


def init_state(
  init_params: Callable[[Array], Params],
  optimizer: optax.GradientTransformation,
  *,
  seed: int | UInt32[Array, ""],
  ema: bool,
  memory: Any = None,
  recent_losses: Any = None,
) -> TrainState:
  """Make the state before the first step. Call it under jit, or under eval_shape for its shapes.

  Args:
    init_params: function that makes the parameters from a key.
    optimizer: the optax transformation.
    seed: seed of the run.
    ema: True to keep a moving average of the parameters.
    memory: memory of the terms before the first step.
    recent_losses: recent losses before the first step.
  """
  params_key, step_key = jax.random.split(jax.random.key(seed))
  params = init_params(params_key)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    ema=jax.tree.map(jnp.copy, params) if ema else None,
    rng=jax.random.key_data(step_key),
    memory=memory,
    recent_losses=recent_losses,
  )


def state_shardings(shapes: TrainState, rules: Rules[Placement], mesh: Mesh) -> Any:
  """Make the shardings of a state: parameters by the rules, moments and averages like them, the rest replicated."""
  params = parameter_shardings(rules, shapes.params, mesh)
  whole = replicated(mesh)
  memory = jax.tree.map(lambda _: whole, shapes.memory)
  places: dict[str, Any] = dict(step=whole, params=params, rng=whole, ema=None if shapes.ema is None else params)
  places["recent_losses"] = None if shapes.recent_losses is None else whole
  return TrainState(opt_state=_beside(shapes.opt_state, shapes.params, params, whole), memory=memory, **places)


def _beside(tree: Any, params: Params, shardings: Any, default: NamedSharding) -> Any:
  """Shardings of a tree. A leaf has the sharding of a parameter of the same shape if its path ends in that path."""
  known = {
    parameter_path(path): (leaf.shape, sharding)
    for (path, leaf), sharding in zip(
      jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(shardings), strict=True
    )
  }

  def sharding_of(key_path, leaf):
    parts = parameter_path(key_path).split("/")
    for start in range(len(parts)):
      shape, sharding = known.get("/".join(parts[start:]), (None, None))
      if shape == leaf.shape:
        return sharding
    return default

  return jax.tree_util.tree_map_with_path(sharding_of, tree)
