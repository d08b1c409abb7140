"""Word-patch alignment against IPOT written out pair by pair in float64, and the term that uses it."""

import dataclasses
import math
import types
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.errors import ConfigError
from mmjax.objectives import Forward, SwappedMatching, transport_plan, word_patch_distance
from mmjax.types import Encoded
from tests.objectives.per_example import cross_entropy, keys, normal

WORDS = np.asarray([[0, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
PATCHES = np.asarray([[1, 1, 1], [1, 1, 0], [1, 1, 1], [0, 0, 1]], bool)


def slow_plan(cost, beta=0.5, iterations=50):
  """IPOT, algorithm 1 of Xie et al. 2020, for one example without padding."""
  n, m = cost.shape
  kernel, plan, b = np.exp(-cost / beta), np.ones((n, m)), np.ones(n) / n
  for _ in range(iterations):
    product = kernel * plan
    a = 1 / (m * np.array([sum(product[i, j] * b[i] for i in range(n)) for j in range(m)]))
    b = 1 / (n * np.array([sum(product[i, j] * a[j] for j in range(m)) for i in range(n)]))
    plan = np.array([[b[i] * product[i, j] * a[j] for j in range(m)] for i in range(n)])
  return plan


def slow_distance(words, patches):
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  cost = 1 - unit(words) @ unit(patches).T
  return (slow_plan(cost) * cost).sum()


def test_the_plan_is_that_of_the_algorithm_and_padding_takes_no_part():
  cost = np.random.default_rng(0).uniform(0, 2, (4, 5, 3))
  plan = jax.jit(transport_plan)(jnp.asarray(cost, jnp.float32), jnp.asarray(WORDS), jnp.asarray(PATCHES))
  for example in range(4):
    want, counted = np.zeros((5, 3)), np.outer(WORDS[example], PATCHES[example])
    if counted.any():
      within = np.ix_(WORDS[example], PATCHES[example])
      want[within] = slow_plan(cost[example][within])
      assert want.sum() == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(plan[example], want, rtol=1e-4, atol=1e-6)


def test_other_settings_of_the_algorithm_are_used():
  cost = np.random.default_rng(1).uniform(0, 2, (1, 4, 3))
  every = jnp.ones((1, 4), bool), jnp.ones((1, 3), bool)
  plan = transport_plan(jnp.asarray(cost, jnp.float32), *every, beta=0.2, iterations=3)
  np.testing.assert_allclose(plan[0], slow_plan(cost[0], 0.2, 3), rtol=1e-4)
  assert not np.allclose(plan[0], slow_plan(cost[0]), rtol=1e-2)


def test_the_distance_and_its_gradient_through_the_cost():
  words, patches = normal(4, 5, 6), normal(4, 3, 6, seed=1)

  @jax.jit
  def measured(words, patches):
    find = lambda words: word_patch_distance(
      words, patches, word_mask=jnp.asarray(WORDS), patch_mask=jnp.asarray(PATCHES)
    )
    return find(words), jax.grad(lambda words: find(words).sum())(words)

  distance, gradient = measured(words, patches)
  for row in (0, 1, 3):
    want = slow_distance(np.asarray(words, float)[row, WORDS[row]], np.asarray(patches, float)[row, PATCHES[row]])
    assert float(distance[row]) == pytest.approx(want, rel=1e-5)
  assert distance[2] == 0 and not np.asarray(gradient)[2].any() and np.isfinite(gradient).all()
  assert (np.abs(np.asarray(gradient)).sum(-1) > 0)[[0, 1]].tolist() == WORDS[[0, 1]].tolist()
  assert float(word_patch_distance(words[:1], words[:1], word_mask=WORDS[:1], patch_mask=WORDS[:1])[0]) < 0.05


ROWS, CLASS, CONCEPTS = 8, 1, np.arange(8)


class Model:
  """Fused tokens say which image and which text they are of; the image has a class token before its patches."""

  config = types.SimpleNamespace(
    image=types.SimpleNamespace(grid=2), text=types.SimpleNamespace(pad_id=0, eos_id=1, special_ids=(0, 1, 2))
  )

  def fuse(self, encoded, *, rng):
    image, text = encoded["image"], encoded["text"]
    self.shown = np.asarray(image.pooled[:, 0].astype(int))
    return {"text": Encoded(text.tokens, text.mask, jnp.concatenate([image.pooled, text.pooled], 1)), "image": image}

  def match_logits(self, pooled):
    return jnp.stack([pooled[:, 0], 0.1 * pooled[:, 1]], 1)


def encoded(length, seed):
  number = jnp.arange(ROWS, dtype=jnp.float32)[:, None]
  return Encoded(normal(ROWS, length, 4, seed=seed), jnp.ones((ROWS, length), bool), number)


class Given(Forward):
  encoded: ClassVar = {"image": encoded(CLASS + 4, 0), "text": encoded(6, 1)}


def forward(concept, step=0):
  ids = np.tile(np.asarray([2, 5, 6, 7, 1, 0], np.int32), (ROWS, 1))
  batch = {"text": jnp.asarray(ids), "concept": jnp.asarray(concept, jnp.int32)}
  return Given(Model(), batch, keys(ROWS, step), jnp.int32(0), (), training=False)


def swaps(term, concept=CONCEPTS, step=0):
  """(scores, the image that every text was shown)."""
  given = forward(concept, step)
  return term.over_rows(given, None), given.model.shown


def test_half_of_the_images_are_swapped_and_the_pairs_are_told_apart():
  term, total = SwappedMatching(group=8, alignment=0.0), []
  for step in range(12):
    scores, image = swaps(term, step=step)
    swapped = image != np.arange(ROWS)
    total += swapped.tolist()
    logits = np.stack([image.astype(float), 0.1 * np.arange(ROWS)], 1)
    np.testing.assert_allclose(scores["loss"][0], cross_entropy(logits, (~swapped).astype(int)), atol=1e-6)
    np.testing.assert_array_equal(scores["accuracy"][0], logits.argmax(1) == ~swapped)
    np.testing.assert_array_equal(scores["loss"][1], 1)
  assert 0.35 < np.mean(total) < 0.65
  assert not (swaps(dataclasses.replace(term, rate=0.0))[1] != np.arange(ROWS)).any()
  assert (swaps(dataclasses.replace(term, rate=1.0))[1] != np.arange(ROWS)).all()
  assert term.chance(8, None) == pytest.approx(math.log(2)) and SwappedMatching().chance(8, None) is None


def test_an_image_with_no_other_to_swap_it_for_stays():
  _, image = swaps(SwappedMatching(group=8, rate=1.0), concept=np.zeros(ROWS))
  np.testing.assert_array_equal(image, np.arange(ROWS))


def test_words_and_patches_of_matching_pairs_are_drawn_together_and_of_others_apart():
  plain, image = swaps(SwappedMatching(group=8, alignment=0.0))
  scores, again = swaps(SwappedMatching(group=8))
  np.testing.assert_array_equal(image, again)
  swapped = image != np.arange(ROWS)
  assert swapped.any() and not swapped.all()
  tokens = {name: np.asarray(e.tokens, float) for name, e in Given.encoded.items()}
  # Words are tokens 1 to 3 of the text (not <cls>, <eos>, padding), patches the last four of the image that was shown.
  want = np.asarray([slow_distance(tokens["text"][row, 1:4], tokens["image"][image[row], 1:]) for row in range(ROWS)])
  distance, counted = scores["distance"]
  np.testing.assert_allclose(distance, want, rtol=1e-4)
  np.testing.assert_array_equal(counted, ~swapped)
  added = np.asarray(scores["loss"][0]) - np.asarray(plain["loss"][0])
  np.testing.assert_allclose(added, 0.1 * np.where(swapped, -want, want), rtol=1e-3, atol=1e-6)


def test_a_fusion_without_image_tokens_has_nothing_to_align():
  given = forward(np.arange(ROWS))
  given.model.fuse = lambda encoded, rng: {"text": encoded["text"]}
  given.model.match_logits = lambda pooled: jnp.zeros((ROWS, 2))
  with pytest.raises(ConfigError, match=r"the fusion of Model has tokens of text only: set --objectives.N.alignment 0"):
    SwappedMatching(group=8).over_rows(given, None)
