"""The transformer against a numpy block, and against itself: scanned, rematerialised, in bfloat16, padded."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn.decoder import Decoder
from mmjax.nn.transformer import Block, Transformer, TransformerConfig

CONFIG = TransformerConfig(width=8, depth=2, num_heads=2, mlp_dim=12, drop_path=0.5)
X = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5, 8)), jnp.float32)
MASK = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], bool)
RNG = jax.random.split(jax.random.key(7), 3)
PICK = jnp.asarray([4, 2, 0])


@functools.cache
def _params():
  return Transformer(CONFIG, causal=True).init(jax.random.key(0), X, MASK)["params"]


def _run(params=None, x=X, mask=MASK, rng=RNG, causal=True, **changes):
  """Tokens, the picked token, and the gradient of a loss on both with respect to the input and the parameters."""
  model = Transformer(dataclasses.replace(CONFIG, **changes), causal=causal)

  def loss(params, x):
    tokens, picked = model.apply({"params": params}, x, mask, rng=rng, pick=PICK)
    return jnp.square(tokens.astype(jnp.float32)[MASK]).mean() + jnp.sin(picked.astype(jnp.float32)).sum(), (
      tokens,
      picked,
    )

  grads, out = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params or _params(), x)
  return out, grads


def _stacked(params):
  layers = [params[f"block_{i}"] for i in range(CONFIG.depth)]
  return {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers), "norm": params["norm"]}


def _assert_close(a, b, tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def _numpy_block(p, x, mask, causal, c=CONFIG):
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), p)

  def norm(x, q):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * q["scale"] + q["bias"]

  def linear(x, q):
    return x @ q["kernel"] + q.get("bias", 0.0)

  def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))

  before = lambda x, q: norm(x, q) if c.norm == "pre" else x
  after = lambda y, q: norm(y, q) if c.norm == "branch" else y
  scaled = lambda y, name: y * p[name]["scale"] if c.layer_scale else y
  h, out = before(x, p["norm1"]), np.zeros_like(x)
  query, key, value = (linear(h, p["attention"][n]).reshape(3, 5, 2, 4) for n in ("query", "key", "value"))
  for b, q, head in np.ndindex(3, 5, 2):
    read = [k for k in range(5) if mask[b, k] and not (causal and k > q)]
    weights = np.exp([query[b, q, head] @ key[b, k, head] / 2 for k in read])
    mixed = sum(w * value[b, k, head] for w, k in zip(weights / weights.sum(), read, strict=True))
    out[b, q, head * 4 : head * 4 + 4] = mixed
  out = norm(out, p["attention"]["norm"]) if c.attention_norm else out
  x = x + scaled(after(linear(out, p["attention"]["out"]), p["norm1"]), "scale1")
  h, mlp = before(x, p["norm2"]), p["mlp"]
  h = norm(h, mlp["input_norm"]) if c.mlp_input_norm else h
  hidden = gelu(linear(h, mlp["gate"])) * linear(h, mlp["up"]) if c.mlp_gated else gelu(linear(h, mlp["up"]))
  hidden = norm(hidden, mlp["norm"]) if c.mlp_norm else hidden
  return x + scaled(after(linear(hidden, mlp["down"]), p["norm2"]), "scale2")


@pytest.mark.parametrize(
  ("causal", "changes"),
  [
    (False, {}),
    (True, {}),
    (False, {"mlp_gated": True, "mlp_input_norm": True, "layer_scale": 0.1}),
    (False, {"mlp_gated": True, "mlp_norm": True, "norm": "branch"}),
    (False, {"attention_bias": "query_value", "attention_norm": True}),
    (False, {"attention_bias": "none"}),
  ],
)
def test_a_block_equals_numpy(causal, changes):
  config = dataclasses.replace(CONFIG, **changes)
  block = Block(config, causal, X.shape[1])
  tokens = X.reshape(-1, X.shape[2])
  layer = jnp.asarray(0)
  params = block.init(jax.random.key(1), tokens, MASK, None, layer)["params"]
  biased = [name for name in ("query", "key", "value") if "bias" in params["attention"][name]]
  assert biased == {"all": ["query", "key", "value"], "query_value": ["query", "value"]}.get(config.attention_bias, [])
  # Small parameters hide mistakes: biases begin at zero, and kernels are drawn small.
  params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), params)
  ours = block.apply({"params": params}, tokens, MASK, None, layer).reshape(X.shape)
  expected = _numpy_block(params, np.asarray(X, np.float64), MASK, causal, config)
  np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=2e-5)


def test_scan_equals_the_loop():
  out, (grads, dx) = _run()
  scanned, (scanned_grads, scanned_dx) = _run(_stacked(_params()), scan=True)
  _assert_close((out, dx, _stacked(grads)), (scanned, scanned_dx, scanned_grads), 1e-5)


def test_each_block_has_its_own_bias_in_the_loop_and_in_the_scan():
  biases = jax.random.normal(jax.random.key(3), (CONFIG.depth, CONFIG.num_heads, X.shape[1], X.shape[1]))
  run = lambda params, biases, **changes: Transformer(dataclasses.replace(CONFIG, **changes)).apply(
    {"params": params}, X, MASK, pick=PICK, biases=biases
  )
  tokens, picked = run(_params(), biases)
  _assert_close((tokens, picked), run(_stacked(_params()), biases, scan=True), 1e-5)
  np.testing.assert_allclose(picked, tokens[jnp.arange(3), PICK], rtol=1e-5, atol=1e-6)
  assert np.abs(run(_params(), biases[::-1])[0] - tokens).max() > 1e-3


@pytest.mark.parametrize(
  "changes",
  [*({"remat": policy} for policy in ("full", "dots", "hidden", "attention")), {"remat": "full", "scan": True}],
)
def test_rematerialisation_changes_nothing(changes):
  out, (grads, dx) = _run()
  params, expected = (_stacked(_params()), _stacked(grads)) if "scan" in changes else (_params(), grads)
  again, (grads_again, dx_again) = _run(params, **changes)
  _assert_close((out, dx, expected), (again, dx_again, grads_again), 1e-5)


def test_bfloat16_is_close_and_keeps_float32_gradients():
  out, (grads, _) = _run()
  low, (low_grads, _) = _run(dtype="bfloat16")
  assert low[0].dtype == jnp.bfloat16
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(low_grads))
  _assert_close(jax.tree.map(lambda x: x.astype(jnp.float32), low), out, 6e-2)
  _assert_close(low_grads, grads, 1e-1)


@pytest.mark.parametrize("causal", [False, True])
def test_the_picked_token_is_the_same_one_as_among_the_tokens(causal):
  tokens, picked = _run(causal=causal)[0]
  np.testing.assert_allclose(picked, tokens[jnp.arange(3), PICK], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_what_stands_in_padding_changes_nothing(causal):
  noise = jnp.where(MASK[:, :, None], X, 50.0)
  (tokens, picked), (grads, dx) = _run(causal=causal)
  (tokens2, picked2), (grads2, dx2) = _run(causal=causal, x=noise)
  _assert_close((tokens[MASK], picked, grads), (tokens2[MASK], picked2, grads2), 1e-5)
  assert (np.asarray(dx2)[~np.asarray(MASK)] == 0).all()
  _assert_close(dx, dx2, 1e-5)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("causal", [False, True])
def test_tokens_added_for_a_tpu_s_kernel_change_nothing(scan, mask, causal, monkeypatch):
  params = _stacked(_params()) if scan else _params()
  want = _run(params, mask=mask, causal=causal, scan=scan)
  monkeypatch.setattr("mmjax.nn.transformer.padding", lambda length, *_: 8 - length)
  _assert_close(_run(params, mask=mask, causal=causal, scan=scan), want, 1e-6)


def test_layer_scale_begins_at_its_value_and_both_stacks_have_it():
  config = dataclasses.replace(CONFIG, depth=1, layer_scale=0.5, mlp_gated=True, mlp_norm=True)
  params = Transformer(config).init(jax.random.key(0), X)["params"]
  assert (np.asarray(params["block_0"]["scale1"]["scale"]) == 0.5).all()
  params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), params)
  decoded, _ = Decoder(config).apply({"params": params}, X, causal=False)
  np.testing.assert_allclose(decoded, Transformer(config).apply({"params": params}, X)[0], rtol=1e-5, atol=1e-5)


def test_drop_path_follows_the_example_in_any_order():
  order = jnp.asarray([2, 0, 1])
  model = Transformer(CONFIG)
  run = jax.jit(lambda x, mask, rng: model.apply({"params": _params()}, x, mask, rng=rng)[0])
  tokens = run(X, MASK, RNG)
  np.testing.assert_allclose(run(X[order], MASK[order], RNG[order]), tokens[order], rtol=1e-5, atol=1e-6)
  evaluation = model.apply({"params": _params()}, X, MASK)[0]
  assert np.abs(evaluation - tokens).max() > 1e-3


def test_fields_that_do_not_fit_are_named():
  with pytest.raises(ValueError, match="width=10 must be divisible by num_heads=3"):
    TransformerConfig(width=10, num_heads=3)
  with pytest.raises(ValueError, match="drop_path=1"):
    TransformerConfig(drop_path=1.0)
  with pytest.raises(ValueError, match='layer_scale needs norm="pre" or "post"'):
    TransformerConfig(layer_scale=0.1, norm="branch")
