"""Pooling by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.nn.pooling import AttentionPool, eos_position, mean_pool
from mmjax.nn.transformer import TransformerConfig, take_token

TOKENS = jnp.asarray(np.random.default_rng(0).standard_normal((3, 4, 8)), jnp.float32)
MASK = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]], bool)


def test_mean_counts_only_real_tokens():
  t = np.asarray(TOKENS)
  expected = [t[0].mean(0), (t[1, 0] + t[1, 2]) / 2, np.zeros(8)]
  np.testing.assert_allclose(mean_pool(TOKENS, MASK), expected, rtol=1e-5, atol=1e-6)


def test_eos_is_the_first_one_and_else_the_last_real_token():
  ids = jnp.asarray([[5, 9, 9, 0], [5, 6, 0, 0], [0, 0, 0, 0], [9, 1, 2, 3]])
  np.testing.assert_array_equal(eos_position(ids, eos_id=9, pad_id=0), [1, 1, 0, 0])
  # Where padding is the end-of-text token itself, the first one still counts.
  np.testing.assert_array_equal(eos_position(ids, eos_id=0, pad_id=0), [3, 2, 0, 3])


def test_a_token_is_taken_by_number_or_by_position():
  np.testing.assert_array_equal(take_token(TOKENS, 2), TOKENS[:, 2:3])
  taken = take_token(TOKENS, jnp.asarray([3, 0, 1]))
  np.testing.assert_array_equal(taken[:, 0], TOKENS[jnp.arange(3), jnp.asarray([3, 0, 1])])


def test_attention_pool_reads_real_tokens_only():
  pool = AttentionPool(TransformerConfig(width=8, num_heads=2, depth=1))
  params = pool.init(jax.random.key(0), TOKENS, MASK)["params"]
  apply = jax.jit(lambda tokens: pool.apply({"params": params}, tokens, MASK))
  changed = jnp.where(MASK[:, :, None], TOKENS, 100.0)
  np.testing.assert_allclose(apply(changed)[:2], apply(TOKENS)[:2], rtol=1e-6)
  reordered = TOKENS.at[0].set(TOKENS[0, ::-1])  # a set has no order
  np.testing.assert_allclose(apply(reordered)[0], apply(TOKENS)[0], rtol=1e-4, atol=1e-5)
