"""Masked words: how often, which, never what; and the loss against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.objectives import choose_positions, distilled_word_loss, mask_tokens, masked_word_loss, take_positions
from tests.objectives.per_example import assert_finite, cross_entropy, keys, normal

PAD, CLS, SEP, MASK, VOCAB = 0, 1, 2, 3, 40
OPTIONS = dict(mask_id=MASK, vocab_size=VOCAB, pad_id=PAD, special_ids=(CLS, SEP))


@pytest.fixture(scope="module")
def many():
  """2,000 texts [CLS] 16 words [SEP] PAD PAD, masked."""
  words = np.random.default_rng(0).integers(4, VOCAB, (2000, 16))
  edge = lambda token, n: np.full((2000, n), token)
  ids = jnp.asarray(np.concatenate([edge(CLS, 1), words, edge(SEP, 1), edge(PAD, 2)], 1), jnp.int32)
  mask = jax.jit(lambda ids, rng: mask_tokens(ids, rng, at_least_one=False, **OPTIONS))
  return ids, *mask(ids, keys(2000))


def test_fifteen_percent_are_chosen_of_which_eighty_ten_ten(many):
  ids, masked, chosen = (np.asarray(x) for x in many)
  count = chosen.sum()
  assert count / (2000 * 16) == pytest.approx(0.15, abs=0.007)  # 3.5 standard deviations
  shares = [(masked[chosen] == MASK).mean(), (masked[chosen] == ids[chosen]).mean()]
  kept = 0.1 + 0.1 / (VOCAB - 4)  # a random word is now and then the word itself
  np.testing.assert_allclose(shares, [0.8, kept], atol=0.025)
  np.testing.assert_array_equal(masked[~chosen], ids[~chosen])


def test_padding_and_special_tokens_are_neither_chosen_nor_put_in(many):
  ids, masked, chosen = (np.asarray(x) for x in many)
  assert not chosen[ids < 4].any()
  drawn = masked[(masked != ids) & (masked != MASK)]
  assert drawn.min() >= 4 and set(drawn) == set(range(4, VOCAB))  # a padding id would be read as the text's end


def test_an_example_is_masked_by_its_own_key_alone():
  ids = jnp.asarray(np.random.default_rng(1).integers(4, VOCAB, (4, 12)), jnp.int32)
  mask, rng = jax.jit(lambda ids, rng: mask_tokens(ids, rng, **OPTIONS)[0]), keys(4)
  masked = mask(ids, rng)
  np.testing.assert_array_equal(mask(ids[::-1], rng[::-1])[::-1], masked)
  other = mask(ids, keys(4, seed=1))
  assert (other != masked).any(1).all()  # the next step's keys hide other words


def test_a_text_with_a_word_has_one_chosen_if_asked_and_an_empty_one_has_none():
  ids = jnp.asarray([[CLS, 7, SEP, PAD], [CLS, SEP, PAD, PAD], [PAD] * 4] * 50, jnp.int32)
  masked, chosen = mask_tokens(ids, keys(150), **OPTIONS)
  np.testing.assert_array_equal(chosen.sum(1), [1, 0, 0] * 50)
  np.testing.assert_array_equal(masked[1::3], ids[1::3])
  _, rarely = mask_tokens(ids, keys(150), at_least_one=False, **OPTIONS)
  assert 0 < rarely.sum() < 25


def test_whole_words_are_hidden_with_all_their_tokens():
  words = jnp.asarray([[-1, 0, 0, 1, 2, 2, 2, 3, -1, -1]] * 3000, jnp.int32)
  ids = jnp.asarray([[CLS, 4, 5, 6, 7, 8, 9, 10, SEP, PAD]] * 3000, jnp.int32)
  mask = jax.jit(lambda rng: mask_tokens(ids, rng, words=words, rate=0.3, at_least_one=False, **OPTIONS))
  masked, chosen = (np.asarray(x) for x in mask(keys(3000)))
  for word in range(4):
    own = chosen[:, np.asarray(words[0]) == word]
    assert (own.all(1) == own.any(1)).all() and own.all(1).mean() == pytest.approx(0.3, abs=0.03)
  assert abs(np.corrcoef(chosen[:, 1], chosen[:, 3])[0, 1]) < 0.07, "words are chosen independently"
  assert not chosen[:, [0, 8, 9]].any()
  long = masked[chosen[:, 4]][:, 4:7]
  assert ((long == MASK).sum(1) == 2).any(), "each token has its own fate"
  _, once = mask_tokens(ids[:50], keys(50), words=words[:50], rate=0.0, **OPTIONS)
  assert {tuple(row) for row in np.asarray(once)[:, 1:8].astype(int).tolist()} <= {
    (1, 1, 0, 0, 0, 0, 0), (0, 0, 1, 0, 0, 0, 0), (0, 0, 0, 1, 1, 1, 0), (0, 0, 0, 0, 0, 0, 1)
  }  # fmt: skip


def test_a_vocabulary_without_words_or_without_a_mask_token_is_refused():
  with pytest.raises(ValueError, match="mask_id=-1 must lie in .* the tokenizer needs a mask token"):
    mask_tokens(jnp.zeros((1, 2), jnp.int32), keys(1), **OPTIONS | {"mask_id": -1})
  with pytest.raises(ValueError, match="vocab_size=4 leaves no word"):
    mask_tokens(jnp.zeros((1, 2), jnp.int32), keys(1), **OPTIONS | {"vocab_size": 4})


def test_the_loss_is_the_mean_over_the_chosen_words():
  logits, ids = normal(3, 5, 7), jnp.asarray(np.random.default_rng(2).integers(0, 7, (3, 5)), jnp.int32)
  chosen = jnp.asarray([[0, 1, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
  each = cross_entropy(logits, ids)
  losses, weights, (gradient,) = assert_finite(lambda logits: masked_word_loss(logits, ids, chosen), logits)
  np.testing.assert_allclose(losses, [each[0, [1, 3]].mean(), 0.0, each[2].mean()], rtol=1e-5)
  np.testing.assert_array_equal(weights, [1, 0, 1])
  assert not gradient[~chosen].any() and gradient[chosen].any()
  assert masked_word_loss(jnp.zeros((1, 2, 7)), ids[:1, :2], chosen[2:, :2]).losses[0] == pytest.approx(np.log(7))


def test_gathering_the_chosen_places_first_changes_nothing():
  hidden, table = normal(4, 9, 3), normal(3, 11, seed=1)
  ids = jnp.asarray(np.random.default_rng(3).integers(0, 11, (4, 9)), jnp.int32)
  chosen = jnp.asarray(np.random.default_rng(4).random((4, 9)) < 0.3).at[2].set(False)
  positions, there = choose_positions(chosen, 5)
  loss = jax.jit(lambda hidden, ids, chosen: masked_word_loss(hidden @ table, ids, chosen))
  few = loss(take_positions(hidden, positions), take_positions(ids, positions), there)
  for got, want in zip(few, loss(hidden, ids, chosen)):
    np.testing.assert_allclose(got, want, rtol=1e-5)
  positions, there = choose_positions(jnp.asarray([[False, True, True, True]]), 2)  # what does not fit is left out
  np.testing.assert_array_equal(positions, [[1, 2]])
  assert there.all()


def test_distillation_mixes_the_words_with_the_teachers_distribution():
  logits, teacher = normal(2, 3, 5), normal(2, 3, 5, seed=1)
  ids, chosen = jnp.asarray([[1, 2, 3], [0, 0, 0]], jnp.int32), jnp.asarray([[True, False, True], [False] * 3])
  loss = lambda logits, teacher: distilled_word_loss(logits, teacher, ids, chosen, alpha=0.4)
  losses, weights, (_, teacher_gradient) = assert_finite(loss, logits, teacher)
  log_q, log_p = (np.stack([-cross_entropy(x, np.full((2, 3), w)) for w in range(5)], -1) for x in (teacher, logits))
  each = 0.6 * cross_entropy(logits, ids) + 0.4 * (np.exp(log_q) * (log_q - log_p)).sum(-1)
  np.testing.assert_allclose(losses, [each[0, [0, 2]].mean(), 0], rtol=1e-5)
  np.testing.assert_array_equal(weights, [1, 0])
  assert not teacher_gradient.any()
