"""ModernBERT's encoder: what a word reads, and fields that do not fit. Values: tests/interop."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.encoders import ModernText, ModernTextConfig

SIZE = dict(width=8, num_heads=2, mlp_dim=8, vocab_size=20, max_length=12, pad_id=0, eos_id=1, window=4)
IDS = jnp.asarray([[3, 4, 5, 6, 7, 8, 9, 10, 11, 12], [3, 4, 5, 6, 7, 8, 1, 0, 0, 0]])


def moved(depth, every, place):
  """Positions of the first text whose vectors change with the word at `place`."""
  model = ModernText(ModernTextConfig(**SIZE, depth=depth, global_every=every))
  params = model.init(jax.random.key(0), IDS)["params"]
  params = jax.tree.map(lambda x: x + 0.3, params)
  read = jax.jit(lambda ids: model.apply({"params": params}, ids).tokens[0])
  return set(np.flatnonzero(np.abs(read(IDS) - read(IDS.at[0, place].set(2))).max(1) > 1e-6))


def test_a_word_is_read_at_most_half_a_window_away_except_in_every_nth_block():
  everything = set(range(10))
  assert moved(1, 1, 5) == everything
  assert moved(3, 3, 5) == everything  # by its first block
  model = ModernText(ModernTextConfig(**SIZE, depth=2, global_every=2))
  params = model.init(jax.random.key(0), IDS)["params"]
  # Without the values of the first block, only the second one reads other words.
  silent = jax.tree.map(lambda x: x, params)
  silent["transformer"]["block_0"]["attention"]["value"]["kernel"] *= 0
  read = jax.jit(lambda ids: model.apply({"params": silent}, ids).tokens[0])
  found = set(np.flatnonzero(np.abs(read(IDS) - read(IDS.at[0, 5].set(2))).max(1) > 1e-7))
  assert found == {3, 4, 5, 6, 7}


def test_padding_changes_nothing_and_gradients_are_finite():
  model = ModernText(ModernTextConfig(**SIZE, depth=2, global_every=2, pool="mean"))
  params = model.init(jax.random.key(0), IDS)["params"]

  @jax.jit
  def run(params, ids):
    return model.apply({"params": params}, ids).pooled

  short = run(params, IDS[1:, :7])
  np.testing.assert_allclose(run(params, IDS)[1:], short, rtol=1e-5, atol=1e-6)
  gradient = jax.jit(jax.grad(lambda p: jnp.square(run(p, IDS)).sum()))(params)
  assert all(np.isfinite(leaf).all() and np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    ({"causal": True, "pool": "mean"}, "causal=True is not an option"),
    ({"positions": "learned"}, "positions=learned is not an option"),
    ({"norm": "post"}, "norm=post is not an option"),
    ({"pool": "last"}, 'must be "first" or "mean"'),
    ({"window": 1}, "window=1 must be at least 2"),
    ({"num_heads": 8}, "must be even"),
  ],
)
def test_fields_that_do_not_fit(fields, said):
  with pytest.raises(ValueError, match=said):
    dataclasses.replace(ModernTextConfig(**SIZE), **fields)


def test_a_text_that_is_too_long_is_refused():
  model = ModernText(ModernTextConfig(**SIZE, depth=1))
  with pytest.raises(ValueError, match="13 tokens, more than max_length=12"):
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 13), jnp.int32))
