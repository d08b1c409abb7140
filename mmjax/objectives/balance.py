"""How much each of several objectives counts: learned, or a function of the step."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


def uncertainty_weighted(
  losses: Mapping[str, Float[Array, ""]], log_variances: Mapping[str, Float[Array, ""]]
) -> Float[Array, ""]:
  """sum exp(-s) L + s / 2, with a learned log variance s per loss (Kendall et al. 2018, eq. 10).

  s begins at 0, and settles where exp(s) = 2 L: each loss then contributes 1/2 to the first sum, whatever its scale.
  The total is no measure of progress (it can be negative); the losses themselves are.

  Raises: ValueError where the two do not name the same losses.
  """
  if set(losses) != set(log_variances):
    raise ValueError(f"losses are {sorted(losses)}, log_variances {sorted(log_variances)}: give one for each")
  total = jnp.zeros((), jnp.float32)
  for name in sorted(losses):
    s = log_variances[name].astype(jnp.float32)
    total = total + jnp.exp(-s) * losses[name].astype(jnp.float32) + s / 2
  return total


def piecewise_linear(step: int | Int[Array, ""], points: Sequence[tuple[int, float]]) -> Float[Array, ""]:
  """The value at a step, on straight lines between (step, value) points and level outside them.

  ALBEF's alpha: ((0, 0.0), (one_epoch, 0.4)).

  Raises: ValueError for no point, or steps that do not increase.
  """
  steps, values = [at for at, _ in points], [value for _, value in points]
  if not points or sorted(set(steps)) != steps:
    raise ValueError(f"points must be (step, value) pairs in the order of their steps, got {tuple(points)}")
  at = jnp.asarray(step).astype(jnp.float32)
  return jnp.interp(at, jnp.asarray(steps, jnp.float32), jnp.asarray(values, jnp.float32))
