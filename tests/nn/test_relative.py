"""Relative position bias and the other options of T5's blocks: buckets, and a stack against itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fusion import FusionConfig
from mmjax.nn.relative import distance_buckets
from mmjax.nn.transformer import Transformer, TransformerConfig

T5 = TransformerConfig(width=8, depth=2, num_heads=2, head_dim=3, activation="relu", mlp_gated=True, linear_bias=False)
T5 = dataclasses.replace(T5, rms_norm=True, scaled_attention=False, relative_buckets=4, relative_distance=5)
X = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 8)), jnp.float32)
PICK = jnp.asarray([4, 1])


def test_buckets_by_hand():
  both = distance_buckets(9, buckets=8, distance=4, causal=False)
  assert both[4].tolist() == [3, 3, 2, 1, 0, 5, 6, 7, 7]  # keys before the query, itself, and keys after it
  assert distance_buckets(6, buckets=4, distance=8, causal=True)[5].tolist() == [3, 3, 2, 2, 1, 0]
  assert (np.triu(distance_buckets(6, buckets=4, distance=8, causal=True), 1) == 0).all()


def test_buckets_of_some_queries_are_rows_of_the_table():
  fields = dict(buckets=8, distance=6, causal=True)
  some = distance_buckets(9, **fields, places=jnp.asarray([[3, 4], [7, 8]]))
  np.testing.assert_array_equal(some, distance_buckets(9, **fields)[jnp.asarray([[3, 4], [7, 8]])])


def test_a_claim_of_millions_of_positions_takes_no_memory():
  config = dataclasses.replace(T5, depth=1, relative_distance=100)
  tokens = jax.ShapeDtypeStruct((1, 2**24, 8), jnp.float32)
  shapes = jax.eval_shape(Transformer(config).init, jax.random.key(0), tokens)["params"]
  assert shapes["relative_bias"]["table"].shape == (4, 2)


def _run(params, config):
  model = Transformer(config)

  def loss(params):
    tokens, picked = model.apply({"params": params}, X, pick=PICK)
    return jnp.sin(tokens).sum() + jnp.square(picked).sum(), (tokens, picked)

  grads, out = jax.jit(jax.grad(loss, has_aux=True))(params)
  return out, grads


def _params():
  params = Transformer(T5).init(jax.random.key(0), X)["params"]
  return jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), params)


def _stacked(params):
  layers = [params[f"block_{i}"] for i in range(T5.depth)]
  rest = {name: part for name, part in params.items() if not name.startswith("block_")}
  return rest | {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)}


def test_scan_equals_the_loop_and_the_table_is_learned():
  (tokens, picked), grads = _run(_params(), T5)
  out, again = _run(_stacked(_params()), dataclasses.replace(T5, scan=True))
  for a, b in zip(jax.tree.leaves((tokens, picked, _stacked(grads))), jax.tree.leaves((*out, again)), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)
  np.testing.assert_allclose(picked, tokens[jnp.arange(2), PICK], rtol=1e-5, atol=1e-5)
  assert (np.abs(grads["relative_bias"]["table"]).max(1) > 1e-3).sum() == 3  # no key of 5 is in the bucket of 0 after


def test_the_parameters_have_no_biases_and_the_heads_their_own_width():
  params = _params()
  assert set(params["block_0"]["norm1"]) == {"scale"} and set(params["block_0"]["mlp"]["up"]) == {"kernel"}
  assert params["block_0"]["attention"]["query"]["kernel"].shape == (8, 6)
  assert params["block_0"]["attention"]["out"]["kernel"].shape == (6, 8)


@pytest.mark.parametrize(
  ("config", "change"),
  [
    (FusionConfig, dict(relative_buckets=4)),
    (FusionConfig, dict(rms_norm=True)),
    (FusionConfig, dict(head_dim=3)),
    (FusionConfig, dict(key_heads=3)),
  ],
)
def test_stacks_without_these_options_refuse_them(config, change):
  with pytest.raises(ValueError, match=f"{next(iter(change))}=.* is not an option of a"):
    config(**change)
  with pytest.raises(ValueError, match="relative_buckets=300 must lie in"):
    TransformerConfig(relative_buckets=300)
