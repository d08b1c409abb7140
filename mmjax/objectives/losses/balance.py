"""Weights of several losses: learned, from their gradients, or a function of the step."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key


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


def projected_weights(products: Float[Array, "k k"], key: Key[Array, ""]) -> Float[Array, "k"]:
  """Weights of k gradients whose sum is that of the projected gradients (PCGrad, Yu et al. 2020, algorithm 1).

  Each gradient g_i loses its part along every other g_j that it conflicts with, one after the other in random order:
  where g_i . g_j < 0, g_i becomes g_i - (g_i . g_j / |g_j|^2) g_j. The result is a combination of the k gradients, so
  their scalar products are all that is needed.

  Args:
    products: scalar products g_i . g_j.
    key: key of the orders.
  Returns: w, so that the sum over i of the projected g_i is the sum over j of w_j g_j.
  """
  count = products.shape[0]

  def project(i: Array, key: Array) -> Array:
    def against(place: Array, mine: Array) -> Array:
      j = order[place]
      along = jnp.dot(mine, products[:, j])
      length = products[j, j]
      share = jnp.where((j != i) & (along < 0) & (length > 0), along / jnp.where(length > 0, length, 1.0), 0.0)
      return mine.at[j].add(-share)

    order = jax.random.permutation(key, count)
    return jax.lax.fori_loop(0, count, against, jnp.zeros(count, products.dtype).at[i].set(1.0))

  return jax.vmap(project)(jnp.arange(count), jax.random.split(key, count)).sum(0)


def norm_slopes(
  weights: Float[Array, "k"],
  norms: Float[Array, "k"],
  losses: Float[Array, "k"],
  initial: Float[Array, "k"],
  alpha: float,
) -> Float[Array, "k"]:
  """Gradient of GradNorm's loss by the weights (Chen et al. 2018, equation 2).

  The loss is the sum over i of |w_i n_i - mean_j(w_j n_j) r_i^alpha|, where the second term is held constant. r_i is
  the task's L_i / L_i(0), divided by the mean of these ratios: a task that has learned less gets a larger gradient.

  Args:
    weights: weights w of the losses.
    norms: norms n of the gradients of the losses, without their weights.
    losses: the losses L. They are positive.
    initial: the losses L(0) at the first step.
    alpha: strength with which tasks are brought to the same rate.
  """
  ratios = losses / initial
  mine = weights * norms
  wanted = mine.mean() * (ratios / ratios.mean()) ** alpha
  return jnp.sign(mine - wanted) * norms


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
