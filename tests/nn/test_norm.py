"""Layer normalisation and unit norm against numpy."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.nn.norm import ResponseNorm, _moments, _moments_at_once, layer_norm, normalize


def _plain(x, scale, bias, epsilon):
  mean = x.mean(-1, keepdims=True)
  variance = ((x - mean) ** 2).mean(-1, keepdims=True)
  return (x - mean) / jnp.sqrt(variance + epsilon) * scale[None, None] + bias[None, None]


def _arguments():
  rng = np.random.default_rng(0)
  x, g = (jnp.asarray(rng.standard_normal((2, 3, 8)) * 3 + 1, jnp.float32) for _ in range(2))
  scale, bias = (jnp.asarray(rng.standard_normal(8), jnp.float32) for _ in range(2))
  return x, scale, bias, g


def test_value_and_gradients_equal_those_of_the_plain_formula():
  x, scale, bias, g = _arguments()
  ours, pull = jax.vjp(lambda *a: layer_norm(*a, 1e-3), x, scale, bias)
  plain, pull_plain = jax.vjp(lambda *a: _plain(*a, 1e-3), x, scale, bias)
  for a, b in zip((ours, *pull(g)), (plain, *pull_plain(g)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


def test_root_mean_square_equals_the_plain_formula():
  x, scale, bias, g = _arguments()
  plain = lambda x, s, b: x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-3) * s[None, None] + b[None, None]
  ours, pull = jax.vjp(lambda *a: layer_norm(*a, 1e-3, False), x, scale, bias)
  expected, pull_plain = jax.vjp(plain, x, scale, bias)
  for a, b in zip((ours, *pull(g)), (expected, *pull_plain(g)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


def test_statistics_of_bfloat16_input_are_float32():
  x, scale, bias, _ = _arguments()
  low = (x + 100).astype(jnp.bfloat16)  # in bfloat16, the mean of such numbers would be off by 0.25
  ours = layer_norm(low, scale, bias, 1e-6)
  assert ours.dtype == jnp.bfloat16
  plain = _plain(low.astype(jnp.float32), scale, bias, 1e-6)
  np.testing.assert_allclose(ours.astype(jnp.float32), plain, rtol=1e-2, atol=1e-2)


def test_moments_in_one_pass_are_the_same_up_to_the_digits_a_far_mean_costs():
  x = jax.random.normal(jax.random.key(0), (4, 256)) + jnp.asarray([[0.0], [1.0], [10.0], [-30.0]])
  mean, variance = _moments(x)
  at_once, others = _moments_at_once(x)
  np.testing.assert_array_equal(at_once, mean)
  np.testing.assert_allclose(others[:2], variance[:2], rtol=1e-6)
  np.testing.assert_allclose(others[2:], variance[2:], rtol=30**2 * 1e-6)
  assert _moments_at_once(jnp.full((1, 8), 0.1, jnp.float32))[1] >= 0  # a difference of roundings, and never negative


def test_unit_norm_has_a_finite_gradient_at_zero():
  np.testing.assert_allclose(normalize(jnp.asarray([[3.0, 4.0]])), [[0.6, 0.8]], rtol=1e-6)
  assert np.isfinite(jax.grad(lambda x: normalize(x).sum())(jnp.zeros((1, 4)))).all()


def test_response_norm_by_hand():
  x = np.zeros((2, 1, 2, 2), np.float32)
  x[0] = [[[3.0, 1.0], [4.0, 0.0]]]  # norms 5 and 1 of the channels, whose mean is 3
  params = {"scale": np.array([2.0, 3.0], np.float32), "bias": np.array([0.0, 10.0], np.float32)}
  out = ResponseNorm().apply({"params": params}, jnp.asarray(x))
  expected = [[3 * (1 + 2 * 5 / 3), 1 + 3 * 1 / 3 + 10], [4 * (1 + 2 * 5 / 3), 10]]
  np.testing.assert_allclose(out[0, 0], expected, rtol=1e-5)
  np.testing.assert_allclose(out[1, 0], [[0, 10], [0, 10]])  # an empty image does not divide by zero
  gradient = jax.grad(lambda x: ResponseNorm().apply({"params": params}, x).sum())(jnp.asarray(x))
  assert np.isfinite(gradient).all()
