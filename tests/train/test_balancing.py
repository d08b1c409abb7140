"""Balancing by the gradients of the terms: equal to the papers' rules on gradients that are computed term by term."""

import jax
import numpy as np
import optax
import pytest

from mmjax.parallel.mesh import ParallelConfig, put_batch
from mmjax.train.balancing import _ORDER
from mmjax.train.loss import make_loss
from mmjax.train.step import batch_keys
from tests.objectives.test_balance import projected
from tests.train.systems import batch, beginning, experiment, prepared, two_steps

TERMS = ("masked_words_text", "next_sentence")
pytestmark = pytest.mark.usefixtures("quick_compilations")


def test_terms_that_conflict_are_projected_by_what_they_share_and_other_parameters_keep_their_gradients():
  of = experiment("bert", balance="pcgrad")
  training, state = prepared(of, 1), beginning(of)
  losses = [make_loss(training.model, (term,), mesh=training.mesh, microbatches=1) for term in of.objectives]
  slopes = [
    jax.jit(jax.grad(lambda p, rows, loss=loss: loss(p, state, rows, batch_keys(state.rng, state.step, rows), {})[0]))
    for loss in losses
  ]
  rows = batch() | {"next": np.array([1] * 10 + [0] + [1] * 5, np.int32)}  # with these answers the terms conflict
  grads = [slope(state.params, rows) for slope in slopes]
  leaves = [list(map(np.asarray, jax.tree.leaves(each))) for each in grads]
  shared = [sum(bool(np.any(leaf != 0)) for leaf in pair) > 1 for pair in zip(*leaves, strict=True)]
  assert any(shared) and not all(shared)  # each term has a head of its own
  flat = lambda parts: np.concatenate([leaf.ravel() for leaf, both in zip(parts, shared, strict=True) if both])
  rows_of = np.stack([flat(each) for each in leaves])
  key = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step), _ORDER)
  orders = np.stack([jax.random.permutation(one, 2) for one in jax.random.split(key, 2)])
  expected = projected(rows_of, orders)
  stepped, metrics = training.step(jax.device_put(state, training.shardings), put_batch(rows, training.mesh))
  cosine = rows_of[0] @ rows_of[1] / np.linalg.norm(rows_of[0]) / np.linalg.norm(rows_of[1])
  assert float(metrics["masked_words_text_cosine_next_sentence"]) == pytest.approx(cosine, abs=1e-5)
  assert cosine < -0.2
  parts, place = [], 0
  for both, pair in zip(shared, zip(*leaves, strict=True), strict=True):
    size = pair[0].size if both else 0
    parts.append(expected[place : place + size].reshape(pair[0].shape) if both else sum(pair))
    place += size
  gradient = jax.tree.unflatten(jax.tree.structure(state.params), parts)
  updates, _ = training.optimizer.update(gradient, state.opt_state, state.params)
  wanted = optax.apply_updates(state.params, updates)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), stepped.params, wanted)


@pytest.mark.parametrize("balance", ["pcgrad", "gradnorm"])
def test_it_does_not_depend_on_the_devices(balance):
  alone = two_steps(experiment("bert", balance=balance))
  spread = two_steps(experiment("bert", balance=balance, parallel=ParallelConfig(fsdp=2, microbatches=2)), 4)
  for one, other in zip(alone, spread, strict=True):
    assert one == pytest.approx(other, rel=2e-5, abs=1e-6)


def test_gradnorm_gives_weight_to_what_has_the_smaller_gradient():
  first, second = two_steps(experiment("bert", balance="gradnorm"))
  assert [first[f"{name}_weight"] for name in TERMS] == [1, 1]
  assert first["loss"] == pytest.approx(sum(first[name] for name in TERMS), rel=1e-6)
  weights = [second[f"{name}_weight"] for name in TERMS]
  assert sum(weights) == pytest.approx(2, rel=1e-6) and max(weights) == pytest.approx(
    1.025, rel=1e-4
  )  # Adam's first step
  assert second["loss"] == pytest.approx(sum(w * second[n] for w, n in zip(weights, TERMS, strict=True)), rel=1e-6)
