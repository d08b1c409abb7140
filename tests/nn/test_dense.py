"""The linear layer against a plain product, on every platform's form."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn import dense
from mmjax.nn.dense import Dense, matmul


def _operands(dtype):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)
  return draw(3, 5, 8).astype(dtype), draw(8, 6), draw(3, 5, 6).astype(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_value_and_gradients_equal_those_of_a_plain_product(dtype, tolerance):
  x, kernel, g = _operands(dtype)
  y, pull = jax.vjp(lambda x, k: matmul(x, k, jnp.dtype(dtype)), x, kernel)
  x64, k64, g64 = (np.asarray(a, np.float64) for a in (x, kernel, g))
  expected = (x64 @ k64, g64 @ k64.T, np.einsum("bli,blo->io", x64, g64))
  assert (y.dtype, pull(g)[1].dtype) == (jnp.dtype(dtype), jnp.float32)
  for ours, reference in zip((y, *pull(g)), expected, strict=True):
    np.testing.assert_allclose(np.asarray(ours, np.float64), reference, atol=tolerance * 8, rtol=tolerance)


def test_the_accelerators_form_computes_the_same():
  x, kernel, g = _operands("float32")
  np.testing.assert_allclose(dense._forward(x, kernel), dense._forward_cpu(x, kernel), rtol=1e-5, atol=1e-6)
  for a, b in zip(dense._backward(x, kernel, g), dense._backward_cpu(x, kernel, g), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_the_platform_is_chosen_when_lowering():
  x, kernel, _ = _operands("float32")
  lowered = jax.jit(lambda x, k: matmul(x, k, jnp.dtype("float32"))).trace(x, kernel)
  products = {p: lowered.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu")}
  assert "tensor<15x8xf32>, tensor<8x6xf32>" in products["cpu"]  # two-dimensional operands
  assert "tensor<3x5x8xf32>, tensor<8x6xf32>" in products["tpu"]  # a plain einsum


def test_the_layer_adds_its_bias():
  x, _, _ = _operands("float32")
  layer = Dense(6, nn.initializers.normal(1.0))
  params = layer.init(jax.random.key(0), x)["params"]
  params = {**params, "bias": jnp.arange(6.0)}
  expected = np.asarray(x) @ np.asarray(params["kernel"]) + np.arange(6.0)
  np.testing.assert_allclose(layer.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)
