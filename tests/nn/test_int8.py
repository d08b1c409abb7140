"""Linear layers in int8, against integer arithmetic by hand, and their straight-through gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn.dense import Dense, DenseParameters
from mmjax.nn.int8 import Int8Kernel, RoundedKernel, linear_kernels, rounded, trained_for_int8
from tests.tiny import MODEL

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 3, 16)).astype(np.float32)
KERNEL = (RNG.standard_normal((16, 5)) * [1, 10, 0.1, 3, 1e-3]).astype(np.float32)


def in_int8(array, axis):
  """Integers and their scale, in float64."""
  scale = np.abs(array.astype(np.float64)).max(axis, keepdims=True) / 127
  return np.rint(array / scale), scale


def test_integers_are_multiplied():
  low, scale = in_int8(X, -1)
  weights, of_outputs = in_int8(KERNEL, 0)
  expected = np.einsum("bti,io->bto", low, weights) * scale * of_outputs
  kernel = Int8Kernel(jnp.asarray(weights, jnp.int8), jnp.asarray(of_outputs, jnp.float32))
  found = Dense(5, nn.initializers.zeros, use_bias=False).apply({"params": {"kernel": kernel}}, X)
  np.testing.assert_allclose(found, expected, rtol=2e-6)
  program = str(jax.make_jaxpr(lambda x: kernel.product(x, jnp.float32))(X))
  assert "preferred_element_type=int32" in program and "i8[6,16]" in program
  assert 1e-4 < np.abs(found - X @ KERNEL).max() / np.abs(found).max() < 0.02


def test_training_sees_the_same_numbers_and_the_gradients_of_the_rounded_layer():
  weights, scale = in_int8(KERNEL, 0)
  exact = Int8Kernel(jnp.asarray(weights, jnp.int8), jnp.asarray(scale, jnp.float32)).product(X, jnp.float32)
  product = lambda x, kernel: RoundedKernel(kernel).product(x, jnp.float32)
  np.testing.assert_allclose(product(X, jnp.asarray(KERNEL)), exact, rtol=0, atol=2e-5)
  g = RNG.standard_normal((2, 3, 5)).astype(np.float32)
  _, pull = jax.vjp(product, jnp.asarray(X), jnp.asarray(KERNEL))
  dx, dk = pull(jnp.asarray(g))
  np.testing.assert_allclose(dx, g @ (weights * scale).T, rtol=0, atol=1e-4)
  np.testing.assert_allclose(dk, np.einsum("bti,bto->io", np.multiply(*in_int8(X, -1)), g), rtol=0, atol=1e-4)


def test_zeros_and_large_values_round():
  assert rounded(jnp.zeros(3), -1).tolist() == [0, 0, 0]
  assert rounded(jnp.asarray([254.0, 1.0, -3.1]), -1).tolist() == [254, 0, -4]  # half to even
  assert jax.grad(lambda x: (rounded(x, -1) ** 2).sum() / 2)(jnp.asarray([254.0, 1.1])).tolist() == [254, 2]


def test_the_linear_layers_of_a_model_are_found():
  found = linear_kernels(MODEL.build(), MODEL.example(1))
  block = "transformer/block_0"
  layers = [f"attention/{name}" for name in ("query", "key", "value", "out")] + ["mlp/up", "mlp/down"]
  blocks = {f"{tower}/{block}/{layer}/kernel" for tower in ("image", "text") for layer in layers}
  assert blocks < found and {"image_projection/kernel", "text_projection/kernel"} < found
  params = jax.eval_shape(MODEL.build().init, jax.random.key(0), MODEL.example(1))["params"]
  made = jax.eval_shape(lambda params: trained_for_int8(params, found), params)
  rounded_ones = jax.tree.leaves(made, is_leaf=lambda leaf: isinstance(leaf, RoundedKernel))
  assert sum(isinstance(leaf, RoundedKernel) for leaf in rounded_ones) == len(found)


def test_kernels_that_are_joined_say_so():
  kernel = RoundedKernel(jnp.asarray(KERNEL))
  with pytest.raises(ValueError, match="a RoundedKernel cannot be joined"):
    DenseParameters(5, nn.initializers.zeros, use_bias=False).apply({"params": {"kernel": kernel}}, 16)
