"""Nonlinearities against their definitions in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn.mlp import ACTIVATIONS

X = np.linspace(-8, 8, 321)
DEFINITIONS = {
  "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
  "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
  "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
  "silu": lambda x: x / (1 + math.exp(-x)),
}


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_value_and_slope_equal_the_definition(name):
  ours, f = ACTIVATIONS[name], np.vectorize(DEFINITIONS[name])
  x = jnp.asarray(X, jnp.float32)
  np.testing.assert_allclose(ours(x), f(X), atol=1e-6)
  slope = (f(X + 1e-5) - f(X - 1e-5)) / 2e-5
  # float32 tanh rounds to 1 past 5, where its slope is still some 1e-6
  np.testing.assert_allclose(jax.vmap(jax.grad(ours))(x), slope, atol=5e-6)


def test_bfloat16_stays_bfloat16():
  assert ACTIVATIONS["gelu"](jnp.ones(3, jnp.bfloat16)).dtype == jnp.bfloat16
