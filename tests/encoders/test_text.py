"""The text transformer: pooling, causality and padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import TextConfig, TextTransformer

SMALL = {"vocab_size": 20, "max_length": 6, "width": 8, "depth": 2, "num_heads": 2, "eos_id": 19}
IDS = jnp.asarray([[3, 4, 19, 0, 0, 0], [5, 6, 7, 8, 9, 19]], jnp.int32)


def _text(**fields):
  model = TextTransformer(TextConfig(**SMALL, **fields))
  params = jax.jit(model.init)(jax.random.key(0), IDS)["params"]
  return jax.jit(lambda ids: model.apply({"params": params}, ids))


@pytest.mark.parametrize(
  ("pool", "causal"), [("eos", True), ("eos", False), ("first", False), ("mean", False), ("map", False)]
)
def test_pooling_and_padding(pool, causal):
  encode = _text(pool=pool, causal=causal)
  out = encode(IDS)
  np.testing.assert_array_equal(out.mask, IDS != 0)
  t = np.asarray(out.tokens)
  expected = {"eos": [t[0, 2], t[1, 5]], "first": t[:, 0], "mean": [t[0, :3].mean(0), t[1].mean(0)]}
  if pool in expected:
    np.testing.assert_allclose(out.pooled, expected[pool], rtol=1e-5, atol=1e-6)
  shorter = encode(IDS[:1, :3])  # the same text without its padding
  np.testing.assert_allclose(shorter.pooled[0], out.pooled[0], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(shorter.tokens[0], out.tokens[0, :3], rtol=1e-4, atol=1e-5)


def test_a_last_linear_layer_gives_the_pooled_vector_its_width():
  config = TextConfig(**SMALL, pooled_dim=3)
  out = jax.eval_shape(TextTransformer(config).init_with_output, jax.random.key(0), IDS)[0]
  assert out.pooled.shape == (2, 3) and out.tokens.shape == (2, 6, 8) and config.pooled_width == 3
  assert config.flops() - TextConfig(**SMALL).flops() == 2 * 8 * 3


@pytest.mark.parametrize("causal", [True, False])
def test_only_a_causal_text_ignores_what_comes_later(causal):
  encode = _text(causal=causal)
  changed = encode(IDS.at[1, 4].set(11)).tokens[1, :4] - encode(IDS).tokens[1, :4]
  assert (np.abs(changed).max() < 1e-6) == causal


def test_wrong_fields_and_too_long_texts_are_refused():
  with pytest.raises(ValueError, match=r"eos_id=20 must lie in \[0, vocab_size=20\)"):
    TextConfig(**{**SMALL, "eos_id": 20})
  with pytest.raises(ValueError, match='pool="first" needs causal=False'):
    TextConfig(**SMALL, pool="first")
  with pytest.raises(ValueError, match="text has 7 tokens, more than max_length=6"):
    TextTransformer(TextConfig(**SMALL)).init(jax.random.key(0), jnp.ones((1, 7), jnp.int32))


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_counted_positions_skip_padding_wherever_it_stands(positions):
  encode = _text(positions=positions, count_positions=True, scale_embedding=True, causal=False, pool="mean")
  moved = jnp.asarray([[0, 3, 0, 4, 0, 19], [5, 6, 7, 8, 9, 19]], jnp.int32)
  np.testing.assert_allclose(encode(moved).pooled, encode(IDS).pooled, rtol=1e-5, atol=1e-6)
  swapped = encode(jnp.asarray([[4, 3, 19, 0, 0, 0], [5, 6, 7, 8, 9, 19]], jnp.int32))
  assert np.abs(swapped.pooled[0] - encode(IDS).pooled[0]).max() > 1e-3


def test_without_positions_the_order_of_words_is_lost_and_relative_buckets_tell_it():
  fields = dict(positions="none", causal=False, pool="mean")
  swapped = IDS[:, jnp.asarray([1, 0, 2, 3, 4, 5])]
  for buckets, differs in ((0, False), (4, True)):
    model = TextTransformer(TextConfig(**SMALL, **fields, relative_buckets=buckets))
    params = jax.tree.map(lambda p: p + 0.2, jax.jit(model.init)(jax.random.key(0), IDS)["params"])
    if buckets:
      params["transformer"]["relative_bias"]["table"] = jnp.arange(8.0).reshape(4, 2)
    run = jax.jit(lambda ids, model=model, params=params: model.apply({"params": params}, ids).pooled)
    assert (np.abs(run(IDS) - run(swapped)).max() > 1e-3) == differs


def test_positions_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="count_positions=True needs positions other than"):
    TextConfig(**SMALL, positions="none", count_positions=True)
  with pytest.raises(ValueError, match="count_positions=True needs .* mask_padding=True"):
    TextConfig(**SMALL, mask_padding=False, count_positions=True)
  with pytest.raises(ValueError, match="width=9 must be even"):
    TextConfig(**{**SMALL, "width": 9, "num_heads": 3}, positions="sinusoidal")
