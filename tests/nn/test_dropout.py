"""Dropout of embeddings, branches and attention weights: exact, by example, and absent in evaluation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.fusion import FusionConfig, make_fusion
from mmjax.nn import MLP, MultiHeadAttention, Transformer, TransformerConfig
from mmjax.nn.decoder import Decoder
from mmjax.nn.norm import LayerNorm
from mmjax.nn.stochastic import dropout, dropout_factors, fold_in
from mmjax.types import Encoded

BATCH, LENGTH = 4, 5
CONFIG = TransformerConfig(width=8, depth=2, num_heads=2, dropout=0.4, attention_dropout=0.4)
X = jax.random.normal(jax.random.key(0), (BATCH, LENGTH, 8))
MASK = jnp.arange(LENGTH)[None] < jnp.asarray([5, 3, 4, 5])[:, None]
RNG = jax.random.split(jax.random.key(1), BATCH)
ORDER = jnp.asarray([2, 0, 3, 1])


def parameters(module, *inputs, **options):
  return jax.jit(lambda: module.init(jax.random.key(2), *inputs, **options))()


def test_elements_are_dropped_at_the_rate_and_the_mean_stays():
  rng = jax.random.split(jax.random.key(0), 100)
  factors = np.asarray(dropout_factors((20, 10), rate=0.25, rng=rng))
  assert set(np.unique(factors)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
  assert abs((factors == 0).mean() - 0.25) < 0.01
  assert len({one.tobytes() for one in factors}) == 100
  assert dropout_factors((20, 10), rate=0.0, rng=rng) is None
  assert dropout(X, rate=0.25, rng=None) is X


def test_a_block_equals_its_parts_with_their_factors():
  """Embeddings, both branches and the attention weights, written out."""
  c = dataclasses.replace(CONFIG, depth=1)
  model = Transformer(c)
  variables = parameters(model, X, MASK)
  tokens, _ = jax.jit(model.apply)(variables, X, MASK, rng=RNG)
  p = variables["params"]["block_0"]
  norm = lambda name, x: LayerNorm(c.norm_epsilon).apply({"params": p[name]}, x)
  block = fold_in(RNG, 0)
  x = X * dropout_factors((LENGTH, 8), rate=0.4, rng=fold_in(RNG, 1))
  attention = MultiHeadAttention(2, False, jax.nn.initializers.zeros, "float32", "auto", c.norm_epsilon)
  weights = dropout_factors((2, LENGTH, LENGTH), rate=0.4, rng=fold_in(block, 4))
  read = attention.apply({"params": p["attention"]}, norm("norm1", x), mask=MASK, factors=weights)
  x = x + read * dropout_factors((LENGTH, 8), rate=0.4, rng=fold_in(block, 2))
  mlp = MLP(c.hidden, "gelu", jax.nn.initializers.zeros, "float32")
  x = x + mlp.apply({"params": p["mlp"]}, norm("norm2", x)) * dropout_factors(
    (LENGTH, 8), rate=0.4, rng=fold_in(block, 3)
  )
  last = LayerNorm(c.norm_epsilon).apply({"params": variables["params"]["norm"]}, x)
  np.testing.assert_allclose(tokens, last, atol=2e-6)


def test_attention_multiplies_its_weights_by_the_factors():
  layer = MultiHeadAttention(2, False, jax.nn.initializers.lecun_normal(), "float32", "auto", 1e-6)
  variables = parameters(layer, X, mask=MASK)
  factors = dropout_factors((2, LENGTH, LENGTH), rate=0.5, rng=RNG)
  p = jax.tree.map(np.asarray, variables["params"])  # numpy adds biases without complaint
  heads = lambda name: (np.asarray(X) @ p[name]["kernel"] + p[name]["bias"]).reshape(BATCH, LENGTH, 2, 4)
  logits = np.einsum("bqhd,bkhd->bhqk", heads("query"), heads("key")) / 2
  exponents = np.exp(logits) * np.asarray(MASK)[:, None, None]
  weights = exponents / exponents.sum(-1, keepdims=True) * np.asarray(factors)
  read = np.einsum("bhqk,bkhd->bqhd", weights, heads("value")).reshape(BATCH, LENGTH, 8)
  expected = read @ p["out"]["kernel"] + p["out"]["bias"]
  np.testing.assert_allclose(layer.apply(variables, X, mask=MASK, factors=factors), expected, atol=2e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_the_picked_token_is_dropped_as_among_all_tokens(causal):
  model = Transformer(CONFIG, causal=causal)
  variables = parameters(model, X)
  for pick in (1, jnp.asarray([4, 0, 2, 2])):
    tokens, picked = jax.jit(functools.partial(model.apply, pick=pick))(variables, X, rng=RNG)
    at = jnp.broadcast_to(jnp.asarray(pick), (BATCH,))
    np.testing.assert_allclose(picked, tokens[jnp.arange(BATCH), at], atol=2e-6)


def test_a_scanned_stack_drops_the_same():
  model, scanned = Transformer(CONFIG), Transformer(dataclasses.replace(CONFIG, scan=True, remat="full"))
  p = parameters(model, X)["params"]
  stacked = jax.tree.map(lambda *layers: jnp.stack(layers), p["block_0"], p["block_1"])
  expected = jax.jit(model.apply)({"params": p}, X, rng=RNG)[0]
  found = jax.jit(scanned.apply)({"params": {"blocks": stacked, "norm": p["norm"]}}, X, rng=RNG)[0]
  np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("kind", ["decoder", "co_attention", "bottleneck"])
def test_what_is_dropped_belongs_to_the_example(kind):
  encoded = Encoded(X, MASK, X[:, 0])
  options = dict(width=8, depth=1, num_heads=2, dropout=0.4, attention_dropout=0.4)
  if kind == "decoder":
    module = Decoder(TransformerConfig(**options))
    variables = parameters(module, X, MASK, encoded, causal=True)
    apply = jax.jit(lambda x, rng: module.apply(variables, x.tokens, x.mask, x, causal=True, rng=rng)[0])
  else:
    module = make_fusion(FusionConfig(kind=kind, **options))
    variables = parameters(module, encoded, encoded)
    apply = jax.jit(lambda x, rng: module.apply(variables, x, x, rng=rng).tokens)
  found = apply(encoded, RNG)
  again = apply(jax.tree.map(lambda x: x[ORDER], encoded), RNG[ORDER])
  np.testing.assert_allclose(again, found[ORDER], atol=2e-6)
  assert (jnp.abs(found - apply(encoded, fold_in(RNG, 1))).max((1, 2)) > 1e-3).all()


def test_evaluation_has_no_dropout():
  model = Transformer(CONFIG)
  variables = parameters(model, X)
  plain = Transformer(dataclasses.replace(CONFIG, dropout=0.0, attention_dropout=0.0))
  lowered = [jax.jit(m.apply).lower(variables, X).as_text() for m in (model, plain)]
  assert lowered[0] == lowered[1]


@pytest.mark.parametrize("name", ["dropout", "attention_dropout"])
def test_a_rate_outside_the_range_is_refused(name):
  with pytest.raises(ValueError, match=rf"{name}=1.0 must lie in \[0, 1\)"):
    TransformerConfig(**{name: 1.0})
