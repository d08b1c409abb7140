"""CTC: the loss and both decoders against an enumeration of all paths."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.evaluate.ctc_decoding import likeliest_path, prefix_beam
from mmjax.objectives import ctc_loss
from mmjax.objectives.losses.ctc import symbols

BLANK, END, SYMBOLS, FRAMES = 0, 4, 5, 5
RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(5, FRAMES, SYMBOLS)) * 2, jnp.float32)
LENGTHS = (5, 3, 4, 3, 5)
TEXTS = ((1, 2, END), (3, END), (2, 2, END), (1, 1, 2, END), (END,))  # the fourth needs four frames and has three
IDS = jnp.asarray([[*text, *[BLANK] * (5 - len(text))] for text in TEXTS], jnp.int32)
MASK = jnp.arange(FRAMES)[None] < jnp.asarray(LENGTHS)[:, None]


@functools.cache
def paths(frames):
  """All paths, and the text of each."""
  found = np.array(list(itertools.product(range(SYMBOLS), repeat=frames)))
  return found, [tuple(s for s, _ in itertools.groupby(path) if s != BLANK) for path in found.tolist()]


def slowly(logits, length, text):
  """-log of the sum of the probabilities of all paths of a text."""
  found, texts = paths(length)
  chosen = found[[place for place, each in enumerate(texts) if each == text]]
  log_probs = jax.nn.log_softmax(logits[:length])
  return -jax.nn.logsumexp(log_probs[jnp.arange(length)[None], chosen].sum(1))


def total(losses):
  return (losses.losses * losses.weights).sum()


@jax.jit
def loss(logits):
  return ctc_loss(logits, MASK, IDS, blank_id=BLANK, special_ids=(BLANK, END))


def test_value_and_gradient_are_those_of_the_sum_over_all_paths():
  rows = (0, 1, 2)
  expected = lambda logits: sum(slowly(logits[row], LENGTHS[row], TEXTS[row][:-1]) for row in rows)
  value, gradient = jax.value_and_grad(lambda logits: total(loss(logits)))(LOGITS)
  slow_value, slow_gradient = jax.value_and_grad(expected)(LOGITS)
  np.testing.assert_allclose(value, slow_value, rtol=1e-5)
  np.testing.assert_allclose(gradient, slow_gradient, atol=2e-5)


def test_a_text_that_does_not_fit_and_an_empty_one_have_no_weight():
  found = loss(LOGITS)
  assert found.weights.tolist() == [2, 1, 2, 0, 0] and found.losses[3:].tolist() == [0, 0]


def test_special_tokens_before_a_text_are_left_out():
  labels, counted = symbols(jnp.asarray([[4, 2, 3, 4, 0]], jnp.int32), (0, 4))
  assert labels[0, :2].tolist() == [2, 3] and counted.tolist() == [[True, True, False, False, False]]


def test_in_half_precision_the_loss_is_that_of_the_rounded_scores_in_float32():
  half = LOGITS.astype(jnp.bfloat16)
  np.testing.assert_array_equal(loss(half).losses, loss(half.astype(jnp.float32)).losses)
  assert loss(half).losses.dtype == jnp.float32


@pytest.mark.parametrize("bonus", [0.0, 0.7])
def test_a_wide_beam_finds_the_best_text(bonus):
  for row in range(len(LOGITS)):
    log_probs = np.asarray(jax.nn.log_softmax(LOGITS[row]))
    scores: dict = {}
    for path, text in zip(*paths(FRAMES), strict=True):
      scores[text] = np.logaddexp(scores.get(text, -np.inf), log_probs[np.arange(FRAMES), path].sum())
    best = max(scores, key=lambda text: scores[text] + bonus * len(text))
    found = prefix_beam(log_probs, blank_id=BLANK, beams=10_000, length_bonus=bonus, threshold=-np.inf)
    assert tuple(found) == best


def test_a_beam_sums_over_alignments_where_the_likeliest_path_does_not():
  log_probs = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))  # two blanks .36, one symbol .64
  assert likeliest_path(log_probs, blank_id=0) == []
  assert prefix_beam(log_probs, blank_id=0, beams=4) == [1]


def test_a_symbol_is_said_twice_only_around_a_blank():
  path = lambda *frames: likeliest_path(np.log(np.eye(3)[list(frames)] + 1e-3), blank_id=0)
  assert path(1, 1, 2, 2) == [1, 2] and path(1, 0, 1) == [1, 1] and path(0, 0) == []
