"""The TPU's form of attention equals the plain formula, value and gradient, whatever the mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn.attention_tpu import attention_in_lanes, fits_lanes


def plain(query, key, value, allowed):
  logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
  if allowed is not None:
    logits = jnp.where(allowed, logits, -1e9)
  weights = jax.nn.softmax(logits)
  weights = weights if allowed is None else jnp.where(allowed, weights, 0.0)
  return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def masks(kind: str, length: int):
  if kind == "none":
    return None
  if kind == "causal":
    return jnp.tril(jnp.ones((length, length), bool))[None, None]
  return jnp.arange(length)[None] < jnp.asarray([length, 3, 0])[:, None]  # the third example has nothing to read


@pytest.mark.parametrize("kind", ["none", "causal", "padding"])
@pytest.mark.parametrize(("heads", "dim"), [(4, 64), (4, 32), (2, 128)])
def test_equals_the_plain_formula(kind, heads, dim):
  keys = jax.random.split(jax.random.key(0), 4)
  query, key, value, g = (jax.random.normal(k, (3, 7, heads, dim)) for k in keys)
  allowed = masks(kind, 7)
  allowed = allowed[:, None, None, :] if kind == "padding" else allowed
  got, pull = jax.vjp(lambda *qkv: attention_in_lanes(*qkv, allowed), query, key, value)
  want, pull_plain = jax.vjp(lambda *qkv: plain(*qkv, allowed), query, key, value)
  np.testing.assert_allclose(got, want, atol=2e-6)
  for mine, theirs in zip(pull(g), pull_plain(g), strict=True):
    np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_bfloat16_is_as_near_to_the_truth_as_rounding_allows():
  keys = jax.random.split(jax.random.key(1), 3)
  arrays = [jax.random.normal(k, (2, 9, 2, 64)).astype(jnp.bfloat16) for k in keys]
  want = plain(*(x.astype(jnp.float32) for x in arrays), None)
  got = attention_in_lanes(*arrays, None)
  assert got.dtype == jnp.bfloat16
  np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.02)  # bfloat16 has 8 bits: 2^-8 of values up to 3


@pytest.mark.parametrize(
  ("heads", "dim", "queries", "fits"), [(12, 64, 5, True), (3, 64, 5, False), (16, 72, 5, False), (12, 64, 1, False)]
)
def test_only_heads_that_fill_their_lanes_take_this_form(heads, dim, queries, fits):
  assert fits_lanes(jnp.zeros((1, queries, heads, dim)), jnp.zeros((1, 5, heads, dim))) == fits
