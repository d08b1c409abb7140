"""The encoder-decoder: what is written sees all that is read and nothing that comes later."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.seq2seq import Seq2Seq, Seq2SeqConfig
from mmjax.nn.embeddings import sincos_1d
from mmjax.nn.words import Words
from tests.models.decoders import IDS, REAL, TEXT, assert_close, assert_split_equals_whole, stepwise
from tests.models.random_params import random_params

CONFIG = Seq2SeqConfig(dataclasses.replace(TEXT, scale_embedding=True), encoder_depth=1)
MODEL = Seq2Seq(CONFIG)
READ = jnp.asarray([[3, 4, 5, 6], [7, 8, 0, 0], [9, 0, 0, 0], [0, 0, 0, 0]] * 2, jnp.int32)  # the fourth: nothing


@functools.cache
def params():
  return random_params(MODEL, {"text": IDS})


def _both(model, read, ids):
  encoded = model.encode({"text": read})["text"]
  return model.decode(ids, encoded), encoded


@jax.jit
def run(params, read, ids):
  return MODEL.apply({"params": params}, read, ids, method=_both)


def test_what_is_written_sees_what_is_read_and_nothing_later():
  out, _ = run(params(), READ, IDS)
  later, _ = run(params(), READ, IDS.at[:, 3].set(6))
  np.testing.assert_array_equal(later[:, :3], out[:, :3])
  assert np.abs(run(params(), READ.at[:, 1].set(10), IDS)[0] - out)[0].max(axis=-1).min() > 1e-5
  padded, _ = run(params(), jnp.pad(READ, ((0, 0), (0, 2))), jnp.pad(IDS, ((0, 0), (0, 2))))
  assert_close(padded[:, :6][REAL], out[REAL])


def test_one_table_reads_writes_and_scores_and_is_scaled_by_the_root_of_the_width():
  assert set(params()) == {"words", "encoder", "decoder"}
  table = jax.jit(MODEL.init)(jax.random.key(0), {"text": IDS})["params"]["words"]["token_embedding"]
  assert float(table.std()) == pytest.approx(16**-0.5, rel=0.15)
  words, ours = Words(CONFIG.text), params()["words"]
  expected = ours["token_embedding"][2] * 4 + ours["position_embedding"][0]
  np.testing.assert_allclose(words.apply({"params": ours}, IDS[:1, :1])[0, 0], expected, rtol=1e-5)


def test_cached_logits_are_the_uncached():
  out, read = run(params(), READ, IDS)
  np.testing.assert_allclose(stepwise(MODEL, params(), IDS, read), out, rtol=0, atol=1e-5)


def test_sinusoidal_positions_are_fixed_and_counted_in_a_cache():
  model = Seq2Seq(dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, positions="sinusoidal")))
  fixed = random_params(model, {"text": IDS})
  assert set(fixed["words"]) == {"token_embedding"} and set(params()["words"]) - set(fixed["words"]) == {
    "position_embedding"
  }
  out, read = jax.jit(lambda p, r, i: model.apply({"params": p}, r, i, method=_both))(fixed, READ, IDS)
  np.testing.assert_allclose(stepwise(model, fixed, IDS, read), out, rtol=0, atol=1e-5)
  embedded = Words(model.config.text).apply({"params": fixed["words"]}, IDS[:1, :2])[0]
  expected = fixed["words"]["token_embedding"][IDS[0, :2]] * 4 + sincos_1d(2, 16)
  np.testing.assert_allclose(embedded, expected, rtol=1e-5)
  with pytest.raises(ValueError, match="width=15 must be even"):
    dataclasses.replace(CONFIG.text, positions="sinusoidal", width=15, num_heads=1)


T5 = dict(positions="none", relative_buckets=4, relative_distance=5, scaled_logits=True, key_heads=1)


def test_relative_positions_are_counted_in_a_cache():
  """Two heads of queries share one of keys; without its bias, a decoder without positions tells no order apart."""
  model = Seq2Seq(dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, scale_embedding=False, **T5)))
  weights = random_params(model, {"text": IDS})
  assert set(weights["decoder"]) == {"block_0", "norm", "relative_bias"} == set(weights["encoder"])
  both = jax.jit(lambda p, r, i: model.apply({"params": p}, r, i, method=_both))
  out, read = both(weights, READ, IDS)
  np.testing.assert_allclose(stepwise(model, weights, IDS, read), out, rtol=0, atol=1e-5)
  swapped = IDS.at[:, 1].set(IDS[:, 2]).at[:, 2].set(IDS[:, 1])
  apart = lambda p: float(np.abs(both(p, READ, swapped)[0] - both(p, READ, IDS)[0])[0, 3:].max())
  blank = {"relative_bias": {"table": jnp.zeros((4, 2))}}
  assert apart(weights) > 1e-3 > 1e-5 > apart(weights | {"decoder": weights["decoder"] | blank})


def test_scores_are_divided_by_the_root_of_the_width():
  text = dataclasses.replace(CONFIG.text, scale_embedding=False)
  ours, tokens = params()["words"], jnp.asarray(np.random.default_rng(0).standard_normal((1, 2, 16)), jnp.float32)
  plain, divided = (
    Words(dataclasses.replace(text, scaled_logits=scaled)).apply({"params": ours}, tokens, method="logits")
    for scaled in (False, True)
  )
  np.testing.assert_allclose(divided, plain / 4, rtol=1e-5)


def test_split_over_eight_devices_it_is_the_same():
  assert_split_equals_whole(run, run(params(), READ, IDS), params(), READ, IDS)


def test_post_norm_has_no_norm_at_the_end():
  config = dataclasses.replace(CONFIG, text=dataclasses.replace(CONFIG.text, norm="post"))
  start = jax.eval_shape(Seq2Seq(config).init, jax.random.key(0), {"text": IDS})["params"]
  assert "norm" not in start["decoder"] and "norm" not in start["encoder"]
  assert "norm" in params()["decoder"] and "norm" in params()["encoder"]
