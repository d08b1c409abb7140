"""The TPU's kernel of self-attention equals the plain formula, value and gradient, whatever the mask; interpreted."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn.attention import MultiHeadAttention, padding
from mmjax.nn.attention_tpu import fits_kernel, self_attention
from mmjax.nn.tpu import on_tpu

kernel = functools.partial(self_attention, interpret=True)


def plain(projected, bias, mask, batch, heads, causal):
  packed = projected + bias[None]
  query, key, value = (x.reshape(batch, -1, heads, x.shape[1] // heads) for x in jnp.split(packed, 3, axis=1))
  logits = jnp.einsum("bqhd,bkhd->bhqk", query, key) * query.shape[-1] ** -0.5
  allowed = jnp.ones((1, 1, *logits.shape[2:]), bool) if mask is None else mask[:, None, None, :]
  allowed = allowed & jnp.tril(jnp.ones(logits.shape[2:], bool))[None, None] if causal else allowed
  weights = jnp.where(allowed, jax.nn.softmax(jnp.where(allowed, logits, -1e9)), 0.0)
  return jnp.einsum("bhqk,bkhd->bqhd", weights, value).reshape(packed.shape[0], -1)


def arrays(batch, length, heads, dim, dtype=jnp.float32):
  width = heads * dim
  projected, bias, g = (
    jax.random.normal(jax.random.key(i), size)
    for i, size in enumerate(((batch * length, 3 * width), (3 * width,), (batch * length, width)))
  )
  return projected.astype(dtype), bias, g.astype(dtype)


# Two heads to a tile of 128 lanes; heads of 96 that lie across tiles; four to a tile, three odd examples in a block;
# two blocks of four examples, of which the batch has only seven.
@pytest.mark.parametrize("sizes", [(4, 6, 2, 64), (2, 8, 4, 96), (3, 7, 4, 32), (7, 6, 2, 64)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_equals_the_plain_formula(sizes, causal, padded):
  batch, length, heads, _ = sizes
  readable = jnp.asarray([length, 0, 3, 2, length, 1, 4])[:batch]  # the second example has nothing to read
  mask = jnp.arange(length)[None] < readable[:, None] if padded else None
  projected, bias, g = arrays(*sizes)
  got, pull = jax.vjp(lambda *a: kernel(*a, mask, batch=batch, heads=heads, causal=causal), projected, bias)
  want, pull_plain = jax.vjp(lambda *a: plain(*a, mask, batch, heads, causal), projected, bias)
  np.testing.assert_allclose(got, want, atol=3e-6)
  for mine, theirs in zip(pull(g), pull_plain(g), strict=True):
    np.testing.assert_allclose(mine, theirs, atol=2e-5)


def test_nothing_to_read_gives_zeros_however_large_the_gradient():
  projected, bias, g = arrays(2, 8, 2, 64)
  mask = jnp.zeros((2, 8), bool)
  got, pull = jax.vjp(lambda x: kernel(1e3 * x, bias, mask, batch=2, heads=2, causal=False), projected)
  np.testing.assert_array_equal(got, jnp.zeros_like(got))
  np.testing.assert_array_equal(*pull(1e6 * g), jnp.zeros_like(projected))


def test_bfloat16_is_as_near_to_the_truth_as_rounding_allows():
  projected, bias, g = arrays(2, 8, 2, 64, jnp.bfloat16)
  bias = bias.astype(jnp.bfloat16).astype(jnp.float32)
  got, pull = jax.vjp(lambda x: kernel(x, bias, None, batch=2, heads=2, causal=False), projected)
  want, pull_plain = jax.vjp(lambda x: plain(x, bias, None, 2, 2, False), projected.astype(jnp.float32))
  assert got.dtype == jnp.bfloat16
  np.testing.assert_allclose(got.astype(jnp.float32), want, atol=0.02)  # bfloat16 has 8 bits: 2^-8 of values up to 3
  np.testing.assert_allclose(pull(g)[0].astype(jnp.float32), *pull_plain(g.astype(jnp.float32)), atol=0.04)


def test_each_device_attends_to_its_own_examples():
  mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2], axis_types=(jax.sharding.AxisType.Auto,))
  projected, bias, _ = arrays(4, 8, 1, 128)
  rows = jax.sharding.PartitionSpec("data")
  local = lambda x: kernel(x, bias, None, batch=2, heads=1, causal=False)
  # Interpreted, a kernel's loop over programs forgets along which axes its arrays vary; compiled, there is none.
  split = jax.shard_map(local, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
  np.testing.assert_allclose(jax.jit(split)(projected), plain(projected, bias, None, 4, 1, False), atol=3e-6)


@pytest.mark.parametrize(
  ("length", "width", "heads", "fits"),
  [
    (257, 1024, 16, True),  # CLIP L/14
    (256, 1152, 16, True),  # So400m: heads of 72, in tiles only all together
    (577, 1024, 16, False),  # L/14 at 336 pixels: sixteen heads' logits of 577 x 577 in a program
    (584, 1024, 16, True),
    (257, 1280, 16, False),  # H/14: 64 heads in a program
    (264, 1280, 16, True),
    (197, 192, 3, False),  # a head and a half in the second tile
    (1024, 1024, 16, False),
    (1, 768, 12, False),
    (196, 100, 3, False),
  ],
)
def test_which_sizes_are_the_kernel_s(length, width, heads, fits):
  assert fits_kernel(length, width, heads, itemsize=2, memory=2**27) == fits


def test_what_needs_more_memory_than_there_is_has_no_kernel():
  assert not fits_kernel(264, 1280, 16, itemsize=4, memory=2**24)
  assert fits_kernel(264, 1280, 16, itemsize=4, memory=2**26)


def as_on_tpu(monkeypatch):
  module = sys.modules[MultiHeadAttention.__module__]  # mmjax.nn.attention is the function
  monkeypatch.setattr(module, "on_tpu", lambda: True)
  monkeypatch.setattr("mmjax.nn.attention_tpu.chip_memory", lambda: 2**27)


def test_an_example_is_padded_where_that_alone_gives_it_a_kernel(monkeypatch):
  assert padding(577, 1024, 16, "bfloat16") == 0, "on a CPU"
  as_on_tpu(monkeypatch)
  lengths = {257: 0, 577: 7, 584: 0, 1025: 0}  # fits as it is; padded; fills tiles; too long in any case
  assert {length: padding(length, 1024, 16, "bfloat16") for length in lengths} == lengths


@pytest.mark.parametrize(("causal", "biased", "out_norm"), [(False, "all", False), (True, "query_value", True)])
def test_the_layer_is_the_same_with_it(causal, biased, out_norm, monkeypatch):
  fields = dict(biased=biased, out_norm=out_norm)
  layer = MultiHeadAttention(2, False, jax.nn.initializers.normal(0.1), "float32", "auto", 1e-6, **fields)
  x = jax.random.normal(jax.random.key(0), (2, 8, 128))
  mask = jnp.arange(8)[None] < jnp.asarray([8, 3])[:, None]
  variables = layer.init(jax.random.key(1), x)
  variables = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), variables)

  def run(variables, x):
    return (layer.apply(variables, x, mask=mask, causal=causal) ** 2).sum()

  want = jax.value_and_grad(run, argnums=(0, 1))(variables, x)
  calls = []
  as_on_tpu(monkeypatch)
  counted = lambda *args, **named: calls.append(1) or kernel(*args, **named)
  monkeypatch.setattr("mmjax.nn.attention_tpu.self_attention", counted)
  assert jax.tree.structure(layer.init(jax.random.key(1), x)) == jax.tree.structure(variables)
  got = jax.value_and_grad(run, argnums=(0, 1))(variables, x)
  assert calls
  largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(want[1]))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6 * largest), got, want)


def test_a_cpu_is_no_tpu():
  mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1], axis_types=(jax.sharding.AxisType.Auto,))
  seen = []
  rows = jax.sharding.PartitionSpec("data")
  jax.shard_map(lambda x: seen.append(on_tpu()) or x, mesh=mesh, in_specs=rows, out_specs=rows)(jnp.zeros(1))
  assert seen == [False] and not on_tpu()
