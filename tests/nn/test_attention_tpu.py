"""The TPU's form of attention equals the plain formula, value and gradient, whatever the mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn import attention_tpu
from mmjax.nn.attention_tpu import attention_in_lanes


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
@pytest.mark.parametrize(("heads", "dim", "pieces"), [(4, 64, 1), (3, 40, 3)])
def test_equals_the_plain_formula(kind, heads, dim, pieces, monkeypatch):
  if pieces == 3:
    monkeypatch.setattr(attention_tpu, "ON_CHIP", 0)  # one example at a time
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


@pytest.mark.parametrize(("batch", "size"), [(64, 8), (60, 10), (7, 7), (17, 1)])
def test_pieces_are_the_largest_that_divide_the_batch_and_stay_on_the_chip(batch, size):
  # 16 heads, 256 queries, 196 keys (200 in whole tiles): two float32 arrays of logits are 6.25 MiB an example.
  assert attention_tpu._piece_size((batch, 16, 64, 256), 196) == size


def test_pieces_inside_shard_map_are_each_device_s_own(monkeypatch):
  monkeypatch.setattr(attention_tpu, "ON_CHIP", 0)
  mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))
  x = jax.random.normal(jax.random.key(2), (4, 3, 1, 8))
  rows = jax.sharding.PartitionSpec("data")
  split = jax.shard_map(lambda x: attention_in_lanes(x, x, x, None), mesh=mesh, in_specs=rows, out_specs=rows)
  np.testing.assert_allclose(jax.jit(split)(x), plain(x, x, x, None), atol=2e-6)
