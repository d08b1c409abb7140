"""The decoder stack: what each mode reads, one set of parameters for all of them, and a cache that changes nothing."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.nn.cache import empty_cache, reorder, rewind
from mmjax.nn.decoder import Decoder
from mmjax.nn.transformer import Transformer, TransformerConfig
from mmjax.types import Encoded

CONFIG = TransformerConfig(width=8, depth=2, num_heads=2, mlp_dim=12, drop_path=0.5, qk_norm=True)
_rng = np.random.default_rng(0)
X = jnp.asarray(_rng.standard_normal((3, 5, 8)), jnp.float32)
CONTEXT = Encoded(
  jnp.asarray(_rng.standard_normal((3, 4, 6)), jnp.float32),
  jnp.asarray([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool),  # the third may read nothing
  jnp.zeros((3, 6)),
)
MASK = jnp.asarray([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]], bool)
RNG = jax.random.split(jax.random.key(7), 3)
MODES = {"unimodal": (False, None), "grounded": (False, CONTEXT), "decoder": (True, CONTEXT)}


def _all_modes(model, x, mask, context):
  for causal, read in ((False, None), (False, context), (True, context)):
    model(x, mask, read, causal=causal)


def _model(**changes):
  return Decoder(dataclasses.replace(CONFIG, **changes), separate_causal=True)


@functools.cache
def _params(**changes):
  init = jax.jit(lambda key: _model(**changes).init(key, X, MASK, CONTEXT, method=_all_modes)["params"])
  # Small parameters hide mistakes: biases begin at zero, and kernels are drawn small.
  return jax.tree.map(
    lambda p: p + 0.3 * np.random.default_rng(p.size).standard_normal(p.shape), init(jax.random.key(0))
  )


@functools.cache
def _forward(mode, **changes):
  model, causal = _model(**changes), MODES[mode][0]
  return jax.jit(lambda p, x, mask, read, rng: model.apply({"params": p}, x, mask, read, causal=causal, rng=rng)[0])


def _run(mode, params=None, x=X, context=None, rng=None, mask=MASK, **changes):
  read = MODES[mode][1] if context is None else context
  return _forward(mode, **changes)(params or _params(), x, mask, read, rng)


def _gradient(mode, params, **changes):
  loss = lambda params, x: jnp.square(_run(mode, params, x, rng=RNG, **changes)[MASK].astype(jnp.float32)).mean()
  return jax.jit(jax.grad(loss, argnums=(0, 1)))(params, X)


def _assert_close(a, b, tolerance=1e-5):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


def _used(grads):
  flat = jax.tree_util.tree_leaves_with_path(grads)
  return {jax.tree_util.keystr(path, simple=True, separator="/").split("/")[1] for path, g in flat if jnp.abs(g).max()}


def test_three_modes_share_all_but_self_attention():
  """A mode's gradient reaches its own self-attention only; cross-attention where it reads; norms and MLP always."""
  shared = {"norm1", "norm2", "mlp", "scale", "bias"}
  used = {mode: _used(_gradient(mode, _params())[0]) for mode in MODES}
  assert used["unimodal"] == shared | {"attention"}
  assert used["grounded"] == shared | {"attention", "cross_attention", "norm_cross"}
  assert used["decoder"] == shared | {"causal_attention", "cross_attention", "norm_cross"}


def test_without_context_it_is_the_encoders_transformer():
  plain = {
    name: {k: v for k, v in block.items() if k in ("attention", "mlp", "norm1", "norm2")} if "block" in name else block
    for name, block in _params().items()
  }
  expected, _ = jax.jit(lambda p: Transformer(CONFIG).apply({"params": p}, X, MASK))(plain)
  np.testing.assert_allclose(_run("unimodal"), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_cross_attention_equals_numpy(norm):
  """One block in float64, spelled out; the row whose context is masked gets the output's bias and nothing else."""
  config = dataclasses.replace(CONFIG, depth=1, qk_norm=False, norm=norm, drop_path=0.0)
  model = Decoder(config)
  params = {"block_0": dict(_params()["block_0"]), "norm": _params()["norm"]}
  for name in ("attention", "cross_attention"):
    params["block_0"][name] = {k: v for k, v in params["block_0"][name].items() if "norm" not in k}
  ours, _ = jax.jit(lambda p: model.apply({"params": p}, X, MASK, CONTEXT, causal=True))(params)
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)["block_0"]
  causal = np.asarray(MASK)[:, None, :] & np.tril(np.ones((5, 5), bool))[None]
  x = np.asarray(X, np.float64)
  context = np.asarray(CONTEXT.tokens, np.float64)
  x = _numpy_add(x, p["norm1"], norm, lambda y: _numpy_attention(y, y, p["attention"], causal))
  readable = np.broadcast_to(np.asarray(CONTEXT.mask)[:, None, :], (3, 5, 4))
  x = _numpy_add(x, p["norm_cross"], norm, lambda y: _numpy_attention(y, context, p["cross_attention"], readable))
  x = _numpy_add(x, p["norm2"], norm, lambda y: _numpy_mlp(y, p["mlp"]))
  if norm == "pre":
    x = _numpy_norm(x, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["norm"]))
  np.testing.assert_allclose(ours, x, rtol=1e-4, atol=1e-4)


def _numpy_norm(x, p):
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def _numpy_add(x, p, norm, branch):
  return x + branch(_numpy_norm(x, p)) if norm == "pre" else _numpy_norm(x + branch(x), p)


def _linear(x, p):
  return x @ p["kernel"] + p["bias"]


def _numpy_attention(x, context, p, readable):
  query, key, value = _linear(x, p["query"]), _linear(context, p["key"]), _linear(context, p["value"])
  out = np.zeros_like(query)
  for b, q, head in np.ndindex(*x.shape[:2], 2):
    lanes, read = slice(head * 4, head * 4 + 4), np.flatnonzero(readable[b, q])
    weights = np.exp(key[b, read, lanes] @ query[b, q, lanes] / 2)
    if len(read):
      out[b, q, lanes] = weights @ value[b, read, lanes] / weights.sum()
  return _linear(out, p["out"])


def _numpy_mlp(x, p):
  up = _linear(x, p["up"])
  return _linear(up * 0.5 * (1 + np.vectorize(math.erf)(up / math.sqrt(2))), p["down"])


def test_a_masked_context_token_and_a_later_token_move_nothing():
  tokens = _run("decoder")
  noise = CONTEXT.replace(tokens=jnp.where(CONTEXT.mask[:, :, None], CONTEXT.tokens, 50.0))
  _assert_close(_run("decoder", context=noise), tokens)
  later = _run("decoder", x=X.at[:, 3:].multiply(-1.0))
  np.testing.assert_array_equal(later[:, :3], tokens[:, :3])
  assert np.abs(later - tokens)[0, 3:].max() > 1e-2
  grounded, moved = _run("grounded"), _run("grounded", x=X.at[:, 4].multiply(-1.0))
  assert np.abs(grounded - moved)[0, 0].max() > 1e-3  # which reads both ways
  _assert_close(moved[1, :3], grounded[1, :3])  # but no padding


@pytest.mark.parametrize("changes", [{"scan": True, "remat": "dots"}, {"norm": "post", "remat": "full"}])
def test_scan_and_rematerialisation_change_nothing(changes):
  base = {k: v for k, v in changes.items() if k == "norm"}
  params = {k: v for k, v in _params().items() if not (base and k == "norm")}
  stack = _stacked if "scan" in changes else lambda tree: tree
  grads, dx = _gradient("decoder", params, **base)
  again, dx_again = _gradient("decoder", stack(params), **changes)
  _assert_close((dx, stack(grads)), (dx_again, again))


def _stacked(params):
  layers = [params[f"block_{i}"] for i in range(CONFIG.depth)]
  rest = {name: leaf for name, leaf in params.items() if not name.startswith("block_")}
  return {"blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers), **rest}


def test_a_scanned_stack_creates_what_every_mode_needs():
  shapes = jax.eval_shape(lambda: _model(scan=True).init(jax.random.key(0), X, MASK, CONTEXT, method=_all_modes))
  assert jax.tree.map(jnp.shape, shapes["params"]) == jax.tree.map(jnp.shape, _stacked(_params()))


def test_stochastic_depth_follows_the_example_in_any_order():
  order = jnp.asarray([2, 0, 1])
  context = jax.tree.map(lambda leaf: leaf[order], CONTEXT)
  tokens = _run("decoder", rng=RNG)
  shuffled = _run("decoder", x=X[order], mask=MASK[order], context=context, rng=RNG[order])
  _assert_close(shuffled, tokens[order])
  assert np.abs(tokens - _run("decoder")).max() > 1e-3


def test_bfloat16_is_close_and_keeps_float32_gradients():
  low, grads = _run("decoder", dtype="bfloat16"), _gradient("decoder", _params(), dtype="bfloat16")
  assert low.dtype == jnp.bfloat16 and all(g.dtype == jnp.float32 for g in jax.tree.leaves(grads))
  np.testing.assert_allclose(low.astype(jnp.float32), _run("decoder"), atol=0.15)


@functools.cache
def _step(**changes):
  apply = _model(**changes).apply
  return jax.jit(lambda p, x, read, cache: apply({"params": p}, x, None, read, causal=True, cache=cache))


@pytest.mark.parametrize("scan", [False, True])
def test_the_cache_changes_nothing_however_the_tokens_come(scan):
  """A chunk of four, then one; the context is read once, with the first chunk."""
  params, cache = (_stacked(_params()) if scan else _params()), empty_cache(CONFIG, 3, 7)
  first, cache = _step(scan=scan)(params, X[:, :4], CONTEXT, cache)
  second, cache = _step(scan=scan)(params, X[:, 4:], None, cache)
  whole = _run("decoder", mask=None)
  np.testing.assert_allclose(jnp.concatenate([first, second], 1), whole, rtol=1e-5, atol=1e-5)
  assert (cache.length == 5).all() and cache.layers[0].own.key.shape == (3, 2, 7, 4)


def test_a_cache_that_is_rewound_row_by_row_forgets_and_goes_on():
  """Rows of 4, 2 and 1 tokens, padded and read at once: what each reads next is as if there were no padding."""
  rows, length = jnp.arange(3), jnp.asarray([4, 2, 1])
  _, cache = _step()(_params(), X[:, :4], CONTEXT, empty_cache(CONFIG, 3, 7))
  following, _ = _step()(_params(), X[:, 4:], None, rewind(cache, length))
  whole = _run("decoder", mask=None, x=X.at[rows, length].set(X[:, 4]))
  np.testing.assert_allclose(following[:, 0], whole[rows, length], rtol=1e-5, atol=1e-5)


def test_reordering_moves_a_beams_own_tokens_and_not_its_context():
  cache = empty_cache(CONFIG, 4, 3)
  numbered = jax.tree.map(lambda leaf: leaf + jnp.arange(4.0)[:, None, None, None], cache.layers[0].own)
  layer = cache.layers[0].replace(own=numbered, context=numbered)
  moved = reorder(cache.replace(layers=(layer,)), jnp.asarray([[1, 1], [0, 1]])).layers[0]
  np.testing.assert_array_equal(moved.own.key[:, 0, 0, 0], [1, 1, 2, 3])
  np.testing.assert_array_equal(moved.context.key[:, 0, 0, 0], [0, 1, 2, 3])


def test_a_cache_needs_a_causal_decoder():
  with pytest.raises(ValueError, match="causal=True and mask=None"):
    Decoder(CONFIG).apply({"params": _params()}, X, MASK, causal=True, cache=empty_cache(CONFIG, 3, 7))
