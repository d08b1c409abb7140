"""Weights of objectives: learned, and as functions of the step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.objectives import piecewise_linear, uncertainty_weighted
from mmjax.objectives.losses.balance import norm_slopes, projected_weights


def test_uncertainty_weighting_is_kendalls_sum_and_settles_at_twice_the_loss():
  losses = {"a": jnp.float32(3.0), "b": jnp.float32(0.01)}
  s = {"a": jnp.float32(0.5), "b": jnp.float32(-1.0)}
  want = np.exp(-0.5) * 3 + 0.25 + np.exp(1.0) * 0.01 - 0.5
  assert uncertainty_weighted(losses, s) == pytest.approx(want, rel=1e-6)
  best = {name: jnp.log(2 * loss) for name, loss in losses.items()}
  slopes = jax.grad(lambda s: uncertainty_weighted(losses, s))(best)
  assert max(abs(float(slope)) for slope in slopes.values()) < 1e-6
  with pytest.raises(ValueError, match=r"losses are \['a', 'b'\], log_variances \['a'\]"):
    uncertainty_weighted(losses, {"a": s["a"]})


def test_a_piecewise_linear_weight_passes_through_its_points_and_is_level_outside():
  points = ((10, 0.0), (20, 0.4), (30, 0.1))
  value = jax.jit(lambda step: piecewise_linear(step, points))
  got = [float(value(jnp.int32(step))) for step in (0, 10, 15, 20, 25, 30, 99)]
  np.testing.assert_allclose(got, [0, 0, 0.2, 0.4, 0.25, 0.1, 0.1], rtol=1e-5, atol=1e-7)
  assert piecewise_linear(7, ((0, 2.0),)) == 2
  for bad in ((), ((5, 1.0), (5, 2.0)), ((5, 1.0), (4, 2.0))):
    with pytest.raises(ValueError, match="in the order of their steps"):
      piecewise_linear(0, bad)


def projected(gradients: np.ndarray, orders: np.ndarray) -> np.ndarray:
  """Algorithm 1 of Yu et al. 2020, in its words."""
  found = gradients.copy()
  for i, order in enumerate(orders):
    for j in order:
      if j != i and found[i] @ gradients[j] < 0:
        found[i] -= found[i] @ gradients[j] / (gradients[j] @ gradients[j]) * gradients[j]
  return found.sum(0)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_projected_gradients_are_those_of_the_algorithm(count):
  weights = jax.jit(projected_weights)
  for seed in range(10):
    gradients = np.random.default_rng(seed).standard_normal((count, 4))
    key = jax.random.key(seed)
    orders = np.stack([jax.random.permutation(one, count) for one in jax.random.split(key, count)])
    found = weights(jnp.asarray(gradients @ gradients.T, jnp.float32), key) @ gradients
    np.testing.assert_allclose(found, projected(gradients, orders), rtol=2e-5, atol=2e-5)
  alike = np.array([[1.0, 0.5], [0.5, 2.0]], np.float32)
  np.testing.assert_array_equal(weights(alike, key), [1, 1])  # no conflict
  np.testing.assert_array_equal(weights(np.array([[1.0, 0.0], [0.0, 0.0]], np.float32), key), [1, 1])  # one is zero


def test_gradnorm_s_slopes_are_those_of_its_loss():
  weights, norms = jnp.array([0.5, 1.5, 1.0]), jnp.array([4.0, 0.5, 1.0])
  losses, initial = jnp.array([1.0, 3.0, 2.0]), jnp.array([2.0, 3.0, 2.5])

  def loss(w):
    ratios = losses / initial
    target = jax.lax.stop_gradient((w * norms).mean()) * (ratios / ratios.mean()) ** 1.5
    return jnp.abs(w * norms - target).sum()

  np.testing.assert_allclose(norm_slopes(weights, norms, losses, initial, 1.5), jax.grad(loss)(weights), rtol=1e-6)
