"""Attention against loops in numpy: values, gradients, masks, and queries that may read nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn.attention import MultiHeadAttention, attention

MASK = np.array([[1, 1, 1, 1, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], bool)


BIAS = np.random.default_rng(2).standard_normal((1, 2, 5, 5)).astype(np.float32)


def _slow(query, key, value, mask, causal, bias=None):
  out = np.zeros(query.shape)
  for b, q, h in np.ndindex(query.shape[:3]):
    read = [k for k in range(key.shape[1]) if (mask is None or mask[b, k]) and not (causal and k > q)]
    if read:
      logits = np.array([query[b, q, h] @ key[b, k, h] for k in read]) / np.sqrt(query.shape[-1])
      if bias is not None:
        logits += bias[0, h, q, read]
      weights = np.exp(logits - logits.max())
      out[b, q, h] = sum(w * value[b, k, h] for w, k in zip(weights / weights.sum(), read, strict=True))
  return out


def _inputs(queries=5):
  rng = np.random.default_rng(0)
  draw = lambda length: jnp.asarray(rng.standard_normal((3, length, 2, 4)), jnp.float32)
  return draw(queries), draw(5), draw(5)


@pytest.mark.parametrize("implementation", ["auto", "xla"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_loops(implementation, causal, masked):
  query, key, value = _inputs()
  mask = MASK if masked else None
  out = attention(query, key, value, mask=mask, causal=causal, implementation=implementation)
  np.testing.assert_allclose(out, _slow(*map(np.asarray, (query, key, value)), mask, causal), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("implementation", ["auto", "xla"])
def test_a_bias_is_added_to_the_scaled_logits(implementation):
  query, key, value = _inputs()
  out = attention(query, key, value, mask=MASK, bias=BIAS, implementation=implementation)
  expected = _slow(*map(np.asarray, (query, key, value)), MASK, False, BIAS)
  np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("causal", "bias"), [(False, None), (True, None), (False, BIAS)])
def test_gradients_by_hand_equal_jax_gradients(causal, bias):
  query, key, value = _inputs()
  g = jnp.asarray(np.random.default_rng(1).standard_normal(query.shape), jnp.float32)

  def run(implementation, query, key, value, bias):
    return attention(query, key, value, mask=MASK, causal=causal, bias=bias, implementation=implementation)

  pulls = [jax.tree.leaves(jax.vjp(functools.partial(run, i), query, key, value, bias)[1](g)) for i in ("auto", "xla")]
  for ours, theirs in zip(*pulls, strict=True):
    assert np.isfinite(ours).all()  # the third example's queries read nothing
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=2e-6)


def test_a_query_that_may_read_nothing_gets_zeros():
  query, key, value = _inputs()
  out = attention(query, key, value, mask=MASK)
  assert (np.asarray(out[2]) == 0).all()
  assert (np.asarray(out[:2]) != 0).all()


def test_cross_attention_with_fewer_queries_than_keys():
  query, key, value = _inputs(queries=2)
  expected = _slow(*map(np.asarray, (query, key, value)), MASK, False)
  np.testing.assert_allclose(attention(query, key, value, mask=MASK), expected, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_close_to_float32():
  arguments = _inputs()
  exact = attention(*arguments, mask=MASK)
  low = attention(*[x.astype(jnp.bfloat16) for x in arguments], mask=MASK)
  assert low.dtype == jnp.bfloat16
  np.testing.assert_allclose(low.astype(jnp.float32), exact, atol=3e-2)


def test_qk_norm_makes_attention_independent_of_the_inputs_scale():
  x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 8)), jnp.float32)

  def weights_of(qk_norm, scale):
    module = MultiHeadAttention(2, qk_norm, jax.nn.initializers.normal(1.0), "float32", "auto", 1e-6)
    params = module.init(jax.random.key(0), x)["params"]
    for name in ("query", "key"):
      params[name]["kernel"] = params[name]["kernel"] * scale
    return module.apply({"params": params}, x)

  np.testing.assert_allclose(weights_of(True, 1.0), weights_of(True, 30.0), rtol=1e-4, atol=1e-5)
  assert np.abs(weights_of(False, 1.0) - weights_of(False, 30.0)).max() > 0.1
