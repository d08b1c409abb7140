"""The gradient of a step: that of the sum of the terms, or one that balances the gradients of the terms."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from mmjax.objectives.losses.balance import norm_slopes, projected_weights
from mmjax.train.parameters import BALANCE
from mmjax.train.state import Params, TrainState

Balance = Literal["fixed", "uncertainty", "pcgrad", "gradnorm"]
APART = ("pcgrad", "gradnorm")
"""Kinds of balancing that look at the gradients of single terms. They need a backward pass for each of them."""
Gradient = Callable[..., tuple[Float[Array, ""], Any, Params]]
_ALPHA, _RATE = 1.5, 0.025  # GradNorm's, as in the paper's main experiment
_ORDER = 2  # folded into the key of the step


def plain_gradient(shardings: Any) -> Gradient:
  """(loss function, state, batch, frozen) -> (loss, auxiliary results, gradient).

  Args:
    shardings: shardings of the parameters. Each device keeps its own shard of the gradient.
  """

  def gradient(loss_fn: Any, state: TrainState, batch: Any, frozen: Any) -> Any:
    (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params, state, batch, frozen)
    return loss, aux, jax.lax.with_sharding_constraint(grads, shardings)

  return gradient


def balanced_gradient(names: Sequence[str], balance: Balance, shardings: Any) -> Gradient:
  """The same for a loss function that returns the terms apart. Its metrics and memory get those of the balancing.

  metrics["A_cosine_B"] is the cosine of the gradients of two terms by the parameters that they share, negative where
  one hurts the other.

  Args:
    names: names of the terms, in their order.
    balance: "pcgrad" or "gradnorm".
    shardings: shardings of the parameters.
  """

  def gradient(loss_fn: Any, state: TrainState, batch: Any, frozen: Any) -> Any:
    losses, pull, (metrics, memory, seen) = jax.vjp(
      lambda params: loss_fn(params, state, batch, frozen), state.params, has_aux=True
    )
    # One backward pass after the other, so that their temporary memory is not needed twice.
    grads = [jax.lax.with_sharding_constraint(pull(one)[0], shardings) for one in jnp.eye(len(names))]
    shared = jax.tree.map(lambda *leaves: jnp.stack([jnp.any(leaf != 0) for leaf in leaves]).sum() > 1, *grads)
    products = _products(grads, shared)
    lengths = jnp.sqrt(products.diagonal())
    for i, one in enumerate(names):
      for j, other in enumerate(names[:i]):
        both = lengths[i] * lengths[j]
        metrics |= {f"{other}_cosine_{one}": jnp.where(both > 0, products[i, j] / jnp.where(both > 0, both, 1.0), 0.0)}
    if balance == "pcgrad":
      key = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step), _ORDER)
      weights, elsewhere = projected_weights(products, key), jnp.ones(len(names))
      loss = losses.sum()
    else:
      kept = state.memory[BALANCE]
      weights = elsewhere = kept["weights"]
      loss = (weights * losses).sum()
      metrics |= {f"{name}_weight": weights[place] for place, name in enumerate(names)}
      memory = {**(memory or {}), BALANCE: _moved(kept, lengths, losses)}
    total = jax.tree.map(lambda both, *leaves: _combined(jnp.where(both, weights, elsewhere), leaves), shared, *grads)
    return loss, (metrics, memory, seen), total

  return gradient


def initial_memory(terms: int) -> dict[str, Any]:
  """Memory of GradNorm from step to step: weights, the losses of the first step (NaN before it), Adam's moments."""
  weights = jnp.ones(terms)
  return {"weights": weights, "initial": jnp.full(terms, jnp.nan), "adam": optax.adam(_RATE).init(weights)}


def _moved(kept: Any, norms: Array, losses: Array) -> dict[str, Any]:
  """The memory after a step. The weights stay positive, and their sum is the number of terms."""
  weights = kept["weights"]
  initial = jnp.where(jnp.isnan(kept["initial"]), losses, kept["initial"])
  slopes = norm_slopes(weights, norms, losses, initial, _ALPHA)
  with jax.numpy_dtype_promotion("standard"):
    update, adam = optax.adam(_RATE).update(slopes, kept["adam"])
  moved = jnp.maximum(weights + update, 1e-3)
  return {"weights": moved * len(moved) / moved.sum(), "initial": initial, "adam": adam}


def _products(grads: Sequence[Params], shared: Any) -> Float[Array, "terms terms"]:
  """Scalar products of gradients, over the parameters that two terms or more share."""

  def product(one: Params, other: Params) -> Array:
    parts = jax.tree.map(
      lambda both, a, b: jnp.where(both, jnp.sum(a.astype(jnp.float32) * b.astype(jnp.float32)), 0.0),
      shared,
      one,
      other,
    )
    return sum(jax.tree.leaves(parts), start=jnp.zeros(()))

  return jnp.stack([jnp.stack([product(one, other) for other in grads]) for one in grads])


def _combined(weights: Array, leaves: Sequence[Array]) -> Array:
  return sum(
    (weights[place].astype(leaf.dtype) * leaf for place, leaf in enumerate(leaves)), start=jnp.zeros_like(leaves[0])
  )
