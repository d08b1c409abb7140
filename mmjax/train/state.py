"""What a training run carries from step to step, and where each piece of it lies on the mesh."""

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
  """Everything a step reads and writes.

  Attributes:
    step: optimiser steps taken.
    params: the model's parameters, float32.
    opt_state: the optimiser's state.
    ema: moving average of the parameters, or None.
    rng: key data; the randomness of step s is fold_in(rng, s), so it survives a restart.
    memory: what terms of the loss remember from step to step (queues), by their names; None: they remember nothing.
    recent_losses: float32 [window], NaN where there was none yet; what a jump of the loss is measured by.
  """

  step: Int[Array, ""]
  params: Params
  opt_state: Any
  ema: Params | None
  rng: UInt32[Array, "..."]
  memory: Any = None
  recent_losses: Any = None

  @property
  def evaluation_params(self) -> Params:
    """The average where there is one, the parameters where there is none."""
    return self.params if self.ema is None else self.ema


def init_state(
  init_params: Callable[[Array], Params],
  optimizer: optax.GradientTransformation,
  *,
  seed: int | UInt32[Array, ""],
  ema: bool,
  memory: Any = None,
  recent_losses: Any = None,
) -> TrainState:
  """The state before the first step (call it under jit, or under eval_shape for its shapes)."""
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
  """A TrainState of shardings: parameters by the rules, moments and averages beside them, the rest replicated."""
  params = parameter_shardings(rules, shapes.params, mesh)
  whole = replicated(mesh)
  memory = jax.tree.map(lambda _: whole, shapes.memory)
  places: dict[str, Any] = dict(step=whole, params=params, rng=whole, ema=None if shapes.ema is None else params)
  places["recent_losses"] = None if shapes.recent_losses is None else whole
  return TrainState(opt_state=_beside(shapes.opt_state, shapes.params, params, whole), memory=memory, **places)


def _beside(tree: Any, params: Params, shardings: Any, default: NamedSharding) -> Any:
  """Gives a leaf whose path ends in a parameter's path, and that has its shape, that parameter's sharding."""
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
