"""Weights of several losses: learned, or a function of the step."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


def uncertainty_weighted(
  losses: Mapping[str, Float[Array, ""]], log_variances: Mapping[str, Float[Array, ""]]
) -> Float[Array, ""]:
  """Sum of exp(-s) L + s / 2 over losses, with a learned log variance s per loss (Kendall et al. 2018, eq. 10).

  s starts at 0. At the optimum exp(s) = 2 L, so that each loss contributes 1/2 to the sum of exp(-s) L, whatever its
  scale. The total does not measure progress, and can be negative. The single losses do.

  Args:
    losses: the losses by name.
    log_variances: the learned log variances by the same names.
  Raises:
    ValueError: the names differ.
  """
  if set(losses) != set(log_variances):
    raise ValueError(f"losses are {sorted(losses)}, log_variances {sorted(log_variances)}: give one for each")
  total = jnp.zeros((), jnp.float32)
  for name in sorted(losses):
    s = log_variances[name].astype(jnp.float32)
    total = total + jnp.exp(-s) * losses[name].astype(jnp.float32) + s / 2
  return total


def piecewise_linear(step: int | Int[Array, ""], points: Sequence[tuple[int, float]]) -> Float[Array, ""]:
  """Interpolates linearly between (step, value) points. Outside the points, the value is that of the nearest point.

  ALBEF's alpha: ((0, 0.0), (one_epoch, 0.4)).

  Raises:
    ValueError: there is no point, or the steps do not increase.

  Example:
    >>> from mmjax.objectives import piecewise_linear
    >>> float(piecewise_linear(50, ((0, 0.0), (100, 0.5))))
    0.25
  """
  steps, values = [at for at, _ in points], [value for _, value in points]
  if not points or sorted(set(steps)) != steps:
    raise ValueError(f"points must be (step, value) pairs in the order of their steps, got {tuple(points)}")
  at = jnp.asarray(step).astype(jnp.float32)
  return jnp.interp(at, jnp.asarray(steps, jnp.float32), jnp.asarray(values, jnp.float32))
