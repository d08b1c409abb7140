"""Generated text against the uncached model, word by word, and against every text there is."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models.beam import beam_search
from mmjax.models.generate import choose, generate
from mmjax.models.gpt import Gpt, GptConfig
from mmjax.models.next_word import GenerateConfig, NextWord
from mmjax.nn.words import WordsConfig
from mmjax.parallel.mesh import ParallelConfig, batch_sharding, make_mesh

PAD, EOS, NEW = 0, 1, 3
MODEL = Gpt(GptConfig(WordsConfig(vocab_size=4, max_length=6, width=8, depth=1, num_heads=1)))
# Left-aligned prompts of unequal length, padded to three.
PROMPT = jnp.asarray(
  [[2, 3, 3], [3, 0, 0], [2, 2, 0], [2, 3, 0], [3, 3, 2], [2, 0, 0], [3, 2, 0], [2, 2, 2]], jnp.int32
)
LENGTH = np.asarray((PROMPT != PAD).sum(1))
KEYS = jax.random.split(jax.random.key(3), 8)


@functools.cache
def _params():
  """Random, and large enough that words have different probabilities, the end token among them."""
  params = jax.jit(MODEL.init)(jax.random.key(5), {"text": PROMPT})["params"]
  seed = 57_000  # with which some texts end early and others not at all, and greedy is not always best
  noise = lambda p: np.random.default_rng(seed + p.size).standard_normal(p.shape).astype(np.float32)
  return jax.tree.map(lambda p: p + 0.5 * noise(p), params)


decode = jax.jit(lambda ids: MODEL.apply({"params": _params()}, ids, method="decode"))


def _log_probs(texts):
  """Uncached log-probabilities of the word after every place of [n, 6] texts; padding is never a word."""
  logits = np.asarray(decode(jnp.asarray(texts, jnp.int32)), np.float64)
  logits[:, :, PAD] = -np.inf
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _generate(prompt=PROMPT, keys=None, **fields):
  out = generate(MODEL, _params(), prompt, config=GenerateConfig(max_new_tokens=NEW, **fields), keys=keys)
  return np.asarray(out.ids), np.asarray(out.score)


@functools.cache
def _greedy():
  return _generate()


def _every_text():
  """Every way to go on: up to three words that end with the end token, or three that do not."""
  ended = [(*words, EOS) for n in range(NEW) for words in itertools.product((2, 3), repeat=n)]
  return ended + list(itertools.product((2, 3), repeat=NEW))


def _scores(row):
  """Log-probability of every continuation of a prompt, uncached."""
  length, texts = LENGTH[row], _every_text()
  rows = np.zeros((len(texts), 6), np.int32)
  for text, words in zip(rows, texts):
    text[: length + len(words)] = [*np.asarray(PROMPT[row, :length]), *words]
  log_probs = _log_probs(rows)
  steps = lambda i, words: [log_probs[i, length - 1 + j, word] for j, word in enumerate(words)]
  return {words: sum(steps(i, words)) for i, words in enumerate(texts)}


def test_greedy_takes_the_likeliest_word_until_the_end_and_pads_after_it():
  ids, score = _greedy()
  assert ids.shape == (8, 6)
  ends = 0
  for row in range(8):
    text, expected = [*np.asarray(PROMPT[row, : LENGTH[row]])], 0.0
    for _ in range(NEW):
      log_probs = _log_probs([text + [PAD] * (6 - len(text))])[0, len(text) - 1]
      text.append(int(log_probs.argmax()))
      expected += log_probs.max()
      if text[-1] == EOS:
        ends += 1
        break
    np.testing.assert_array_equal(ids[row], text + [PAD] * (6 - len(text)))
    np.testing.assert_allclose(score[row], expected, rtol=1e-5)
  assert 0 < ends < 8  # some end, some do not: both are tested


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_as_many_beams_as_texts_find_the_best_of_all(penalty):
  ids, score = _generate(beams=15, length_penalty=penalty)
  for row in range(8):
    scores = {words: s / len(words) ** penalty for words, s in _scores(row).items()}
    best = max(scores, key=scores.get)
    text = [*np.asarray(PROMPT[row, : LENGTH[row]]), *best]
    np.testing.assert_array_equal(ids[row], text + [PAD] * (6 - len(text)))
    np.testing.assert_allclose(score[row], scores[best], rtol=1e-5)
  assert (ids != _greedy()[0]).any(1).sum() > 1  # which greedy does not find


def test_one_beam_is_greedy():
  config = GenerateConfig(max_new_tokens=NEW)
  one = jax.jit(lambda params: beam_search(NextWord(MODEL, params), PROMPT, None, config))(_params())
  np.testing.assert_array_equal(one.ids, _greedy()[0])
  np.testing.assert_allclose(one.score, _greedy()[1], rtol=1e-5)


@pytest.mark.parametrize(
  "fields", [{"top_k": 1, "temperature": 1.0}, {"temperature": 1e-4}, {"temperature": 1.0, "top_p": 1e-6}]
)
def test_drawing_from_one_word_is_greedy(fields):
  np.testing.assert_array_equal(_generate(keys=KEYS, **fields)[0], _greedy()[0])


DISTRIBUTION = np.asarray([0.1, 0.4, 0.05, 0.25, 0.2])


@pytest.mark.parametrize(
  "fields, kept",
  [
    ({}, [0, 1, 2, 3, 4]),
    ({"top_p": 0.6}, [1, 3]),  # .4 is not enough, .65 is
    ({"top_p": 0.7}, [1, 3, 4]),
    ({"top_k": 3}, [1, 3, 4]),
    ({"top_k": 3, "top_p": 0.7}, [1, 3]),  # of the three, .76 lies on two
    ({"temperature": 0.5, "top_k": 2}, [1, 3]),
  ],
)
def test_words_are_drawn_from_the_likeliest_in_proportion(fields, kept):
  config = GenerateConfig(**{"temperature": 1.0, **fields})
  keys, many = jax.random.split(jax.random.key(0), 4000), jnp.broadcast_to(jnp.log(DISTRIBUTION), (4000, 5))
  words = np.asarray(jax.jit(lambda p, k: choose(p, config, k))(many.astype(jnp.float32), keys))
  expected = np.zeros(5)
  expected[kept] = DISTRIBUTION[kept] ** (1 / config.temperature)
  expected /= expected.sum()
  frequency = np.bincount(words, minlength=5) / 4000
  assert (frequency[expected == 0] == 0).all()
  np.testing.assert_allclose(frequency, expected, atol=0.04)  # five standard deviations


def test_what_is_drawn_belongs_to_the_row_and_its_key():
  """Another order, and eight devices: the same texts, row by row; another key: others."""
  ids, score = _generate(keys=KEYS, temperature=1.5)
  order = jnp.asarray([3, 7, 0, 5, 2, 1, 6, 4])
  shuffled, _ = _generate(PROMPT[order], KEYS[order], temperature=1.5)
  np.testing.assert_array_equal(shuffled, ids[order])
  rows = batch_sharding(make_mesh(ParallelConfig()))
  split, split_score = _generate(jax.device_put(PROMPT, rows), jax.device_put(KEYS, rows), temperature=1.5)
  np.testing.assert_array_equal(split, ids)
  np.testing.assert_allclose(split_score, score, rtol=1e-5)
  assert (_generate(keys=KEYS[order], temperature=1.5)[0] != ids).any()


def test_what_does_not_fit_is_named():
  with pytest.raises(ValueError, match="keys="):
    _generate(temperature=1.0)
  with pytest.raises(ValueError, match="cache of 7 tokens is more than max_length=6"):
    generate(MODEL, _params(), PROMPT, config=GenerateConfig(max_new_tokens=4))
  with pytest.raises(ValueError, match="beams=2 does not sample"):
    GenerateConfig(beams=2, temperature=1.0)
  with pytest.raises(ValueError, match="top_p=0"):
    GenerateConfig(top_p=0.0)
