"""Matching: which negatives are drawn, and what the pairs cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from mmjax.objectives import MATCHING_CHANCE, global_negatives, hard_negatives, matching_loss, next_sentence_loss
from mmjax.parallel.mesh import ParallelConfig, make_mesh
from mmjax.parallel.ring import take_rows
from tests.objectives import dense
from tests.objectives.per_example import assert_finite, cross_entropy, keys, normal

B, GROUP = 8, 4
CONCEPT = jnp.asarray([0, 0, 1, 2, 5, 5, 5, 5], jnp.int32)  # the second group is one concept throughout


def test_negatives_are_drawn_from_the_softmax_within_the_group():
  x, y, draws = dense.unit(B, 6, 0), dense.unit(B, 6, 1), 3000
  rng = jax.vmap(lambda seed: jax.random.split(jax.random.key(seed), B))(jnp.arange(draws))
  got = jax.jit(jax.vmap(lambda rng: hard_negatives(x, y, rng, logit_scale=4.0, group=GROUP)))(rng)
  logits = 4.0 * np.asarray(x, np.float64) @ np.asarray(y, np.float64).T
  allowed = np.kron(np.eye(2), np.ones((4, 4))) - np.eye(B)
  p = np.exp(logits) * allowed
  for picked, want in ((got.text, p / p.sum(1, keepdims=True)), (got.image, (p / p.sum(0)).T)):
    counted = np.stack([np.bincount(column, minlength=B) for column in np.asarray(picked).T]) / draws
    np.testing.assert_allclose(counted, want, atol=0.04)  # 4 standard deviations
    assert not counted[allowed == 0].any()
  np.testing.assert_array_equal(got.weight, 1)


def test_pairs_that_mean_the_same_are_no_negatives_and_a_row_without_any_has_weight_0():
  x, y = dense.unit(B, 6, 0), dense.unit(B, 6, 1)
  draw = jax.jit(lambda rng: hard_negatives(x, y, rng, logit_scale=1e4, group=GROUP, concept=CONCEPT))
  for seed in range(20):
    got = draw(keys(B, seed))
    for picked in (np.asarray(got.image), np.asarray(got.text)):
      assert (np.asarray(CONCEPT)[picked] != np.asarray(CONCEPT))[:4].all() and (picked[:4] < 4).all()
      np.testing.assert_array_equal(picked[4:], np.arange(4, 8))
    np.testing.assert_array_equal(got.weight, [1] * 4 + [0] * 4)


def test_an_examples_negatives_depend_on_its_group_and_key_alone():
  x, y, rng = dense.unit(B, 6, 0), dense.unit(B, 6, 1), keys(B)
  draw = jax.jit(functools.partial(hard_negatives, logit_scale=4.0), static_argnames="group")
  both, second = draw(x, y, rng, group=GROUP), draw(x[4:], y[4:], rng[4:], group=GROUP)
  np.testing.assert_array_equal(both.image[4:], second.image + 4)
  np.testing.assert_array_equal(both.text[4:], second.text + 4)
  alone = draw(x[:1], y[:1], rng[:1], group=1)
  assert alone.weight[0] == 0 and alone.image[0] == alone.text[0] == 0
  with pytest.raises(ValueError, match="group=3 must divide the 8 rows"):
    hard_negatives(x, y, rng, logit_scale=1.0, group=3)


@pytest.mark.parametrize("concept", [None, CONCEPT])
def test_negatives_of_the_global_batch_are_those_of_one_group_on_any_number_of_devices(concept):
  x, y, rng = dense.unit(B, 6, 0), dense.unit(B, 6, 1), keys(B)
  want = jax.jit(functools.partial(hard_negatives, logit_scale=4.0, group=B))(x, y, rng, concept=concept)
  mesh, split = make_mesh(ParallelConfig(data=2, fsdp=4)), PartitionSpec(("data", "fsdp"))
  draw = lambda axes: (
    lambda x, y, rng, *of: global_negatives(x, y, rng, logit_scale=4.0, concept=of[0] if of else None, axis_name=axes)
  )
  mapped = jax.shard_map(draw(("data", "fsdp")), mesh=mesh, in_specs=split, out_specs=split)
  given = (x, y, rng) if concept is None else (x, y, rng, concept)
  for got in (jax.jit(mapped)(*given), jax.jit(draw(None))(*given)):
    for one, other in zip(got, want, strict=True):
      np.testing.assert_array_equal(one, other)
  assert (np.asarray(want.text[:GROUP]) >= GROUP).any(), "beyond the neighbours"


@pytest.mark.parametrize("axes", [None, "data", ("data", "fsdp")])
def test_rows_come_from_the_devices_that_hold_them_and_gradients_go_back(axes):
  tree = {"a": normal(16, 3), "b": jnp.arange(16, dtype=jnp.int32)}
  wanted, weights = jnp.asarray([15, 0, 3, 3, 9, 1, 8, 15], jnp.int32), normal(8, 3, seed=1)
  take = lambda tree, wanted: take_rows(tree, wanted, axes)
  if axes is not None:
    config = ParallelConfig(data=8) if axes == "data" else ParallelConfig(data=2, fsdp=4)
    split = PartitionSpec(axes)
    local = take
    take = lambda *args: jax.shard_map(local, mesh=make_mesh(config), in_specs=split, out_specs=split)(*args)
  got = jax.jit(take)(tree, wanted)
  np.testing.assert_array_equal(got["a"], tree["a"][wanted])
  np.testing.assert_array_equal(got["b"], wanted)
  back = jax.jit(jax.grad(lambda a: (take({"a": a, "b": tree["b"]}, wanted)["a"] * weights).sum()))(tree["a"])
  expected = np.zeros((16, 3), np.float32)
  np.add.at(expected, np.asarray(wanted), np.asarray(weights))
  np.testing.assert_allclose(back, expected, rtol=1e-6, atol=1e-7)


def test_the_loss_is_the_mean_over_an_examples_pairs():
  positive, negatives = normal(3, 2), normal(2, 3, 2, seed=1)
  right, wrong = cross_entropy(positive, np.ones(3, int)), cross_entropy(negatives, np.zeros((2, 3), int))
  full = jax.jit(matching_loss)(positive, negatives)
  np.testing.assert_allclose(full.losses, (right + wrong.sum(0)) / 3, rtol=1e-5)
  np.testing.assert_array_equal(full.weights, 1)
  weight = jnp.asarray([[1, 1, 0], [1, 0, 0]], jnp.float32)
  loss = lambda positive, n0, n1: matching_loss(positive, jnp.stack([n0, n1]), negative_weight=weight)
  losses, weights, gradients = assert_finite(loss, positive, *negatives)
  np.testing.assert_allclose(losses, [full.losses[0], (right[1] + wrong[0, 1]) / 2, 0], rtol=1e-5)
  np.testing.assert_allclose(weights, [1, 2 / 3, 0], rtol=1e-6)  # the batch's mean is the mean over its pairs
  assert not gradients[0][2].any()


def test_a_batch_of_negatives_alone_is_learned_from_and_finite():
  positive, negatives = normal(2, 2), normal(1, 2, 2, seed=1)
  loss = lambda positive, n: matching_loss(positive, n[None], positive_weight=jnp.zeros(2))
  losses, weights, (for_positive, for_negative) = assert_finite(loss, positive, negatives[0])
  np.testing.assert_allclose(losses, cross_entropy(negatives[0], [0, 0]), rtol=1e-5)
  np.testing.assert_array_equal(weights, 0.5)
  assert not for_positive.any() and for_negative.all()


def test_a_constant_answer_costs_at_best_the_entropy_of_a_third():
  gaps = jnp.linspace(-2, 2, 401)
  say = lambda gap: jnp.stack([jnp.zeros(2), jnp.full(2, gap)], -1)
  losses = jax.jit(jax.vmap(lambda gap: matching_loss(say(gap), jnp.stack([say(gap)] * 2)).losses[0]))(gaps)
  assert float(losses.min()) == pytest.approx(MATCHING_CHANCE, abs=2e-4)
  assert pytest.approx(-np.log(1 / 3) / 3 - 2 / 3 * np.log(2 / 3), rel=1e-12) == MATCHING_CHANCE


def test_next_sentence_is_column_1_and_unknown_has_no_weight():
  logits = normal(3, 2)
  losses, weights, _ = assert_finite(lambda x: next_sentence_loss(x, jnp.asarray([1, 0, -1], jnp.int32)), logits)
  np.testing.assert_allclose(losses, [*cross_entropy(logits[:2], [1, 0]), 0], rtol=1e-5)
  np.testing.assert_array_equal(weights, [1, 1, 0])
