"""Losses of predicted numbers."""

from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.objectives.losses.per_example import ExampleLosses

RegressionLoss = Literal["squared", "huber"]


def regression_loss(
  predicted: Float[Array, "batch"], true: Float[Array, "batch"], *, kind: RegressionLoss, delta: float = 1.0
) -> ExampleLosses:
  """Loss of one predicted number per example, in float32. All weights are 1.

  Args:
    predicted: the predicted numbers.
    true: the true numbers.
    kind: "squared": e^2. "huber": e^2 / 2 up to |e| = delta, and delta (|e| - delta / 2) beyond (Huber 1964).
    delta: error from which the Huber loss is linear.
  """
  error = predicted.astype(jnp.float32) - true.astype(jnp.float32)
  if kind == "squared":
    return ExampleLosses(jnp.square(error), jnp.ones_like(error))
  size = jnp.abs(error)
  losses = jnp.where(size <= delta, 0.5 * jnp.square(error), delta * (size - 0.5 * delta))
  return ExampleLosses(losses, jnp.ones_like(error))
