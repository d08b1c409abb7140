"""The TPU's kernels of layer normalisation equal the plain form, value and gradient; interpreted."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn import norm
from mmjax.nn.norm import LayerNorm, layer_norm
from mmjax.nn.norm_tpu import fits_kernel, norm_beside

EPSILON = 1e-5


def arrays(rows, width, dtype=jnp.float32):
  sizes = ((rows, width), (width,), (width,), (rows, width), (rows, width))
  x, scale, bias, *g = (jax.random.normal(jax.random.key(i), size) for i, size in enumerate(sizes))
  return (3 * x + 1).astype(dtype), scale, bias, tuple(y.astype(dtype) for y in g)


# In three blocks, programs add up the parameters' gradients; of 20 rows the third block has only half.
@pytest.mark.parametrize(("rows", "blocks"), [(24, 1), (20, 1), (24, 3), (20, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 3e-2)])
def test_equals_the_plain_form(rows, blocks, dtype, tolerance, monkeypatch):
  if blocks == 3:
    monkeypatch.setattr("mmjax.nn.norm_tpu._BLOCK", 8 * 128)
  x, scale, bias, g = arrays(rows, 128, dtype)
  got, pull = jax.vjp(lambda *a: norm_beside(*a, EPSILON, True), x, scale, bias)
  want, pull_plain = jax.vjp(lambda x, *a: (x, layer_norm(x, *a, EPSILON)), x, scale, bias)
  assert got[1].dtype == dtype
  close = lambda a, b: np.testing.assert_allclose(
    *(y.astype(jnp.float32) for y in (a, b)), rtol=tolerance, atol=tolerance
  )
  jax.tree.map(close, (got, pull(g)), (want, pull_plain(g)))


@pytest.mark.parametrize(("width", "fits"), [(1024, True), (768, True), (96, False), (65536, False)])
def test_which_sizes_are_the_kernel_s(width, fits):
  assert fits_kernel(width) == fits


def test_the_layer_is_the_same_with_it(monkeypatch):
  x, scale, bias, _ = arrays(16, 128)
  beside = lambda x: LayerNorm(EPSILON).apply({"params": {"scale": scale, "bias": bias}}, x, method="beside")
  same, want = beside(x)
  np.testing.assert_array_equal(same, x)
  calls = []
  monkeypatch.setattr(norm, "on_tpu", lambda: True)
  interpreted = functools.partial(norm_beside, interpret=True)
  monkeypatch.setattr("mmjax.nn.norm_tpu.norm_beside", lambda *args: calls.append(1) or interpreted(*args))
  np.testing.assert_allclose(beside(x)[1], want, rtol=1e-5, atol=1e-5)
  assert calls
