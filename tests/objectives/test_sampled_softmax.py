"""Sampled softmax: value and gradient are those of dense matrices on any devices; frequencies are found."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmjax.objectives import ItemFrequency, sampled_softmax_loss
from tests.objectives import dense

B, D, SCALE = 8, 4, 5.0
IDS = jnp.asarray([2, 3, 4, 4, 5, 6, 7, 2], jnp.int32)
OTHERS = jnp.asarray([3, 9, 4, 1, 1, 8, 5, 10], jnp.int32)
SEEN = jnp.asarray([[5, 0], [0, 0], [2, 9], [10, 6], [0, 0], [2, 3], [8, 8], [7, 6]], jnp.int32)
LOG_Q = jnp.log(jnp.asarray([0.2, 0.1, 0.3, 0.3, 0.02, 0.04, 0.04, 0.2], jnp.float32))
LOG_R = jnp.full(B, -2.0, jnp.float32)


COLUMNS = np.concatenate([IDS, OTHERS]).tolist()
NEGATIVE = np.array([[c != own and c not in seen for c in COLUMNS] for own, seen in zip(IDS.tolist(), SEEN.tolist())])


def reference(user, item, other, scale):
  """Cross-entropy of each user over the own item and the columns that are negatives."""
  logits = scale * user @ jnp.concatenate([item, other]).T - jnp.concatenate([LOG_Q, LOG_R])[None]
  own = scale * (user * item).sum(1) - LOG_Q
  negatives = jnp.where(NEGATIVE, logits, -jnp.inf)
  return (jax.nn.logsumexp(jnp.concatenate([own[:, None], negatives], axis=1), axis=1) - own).mean()


def loss(user, item, other, ids, others, seen, log_q, log_r, scale, axis_name=None):
  more: dict = dict(other=(other, others, log_r), seen=seen, axis_name=axis_name)
  return sampled_softmax_loss(user, item, ids=ids, log_q=log_q, logit_scale=scale, **more)


def test_value_and_gradient_are_those_of_a_list_of_columns_on_one_device_and_on_eight():
  embeddings = tuple(dense.unit(B, D, seed) for seed in range(3))
  want = jax.jit(jax.value_and_grad(reference, (0, 1, 2, 3)))(*embeddings, jnp.float32(SCALE))
  args = (*embeddings, IDS, OTHERS, SEEN, LOG_Q, LOG_R, jnp.float32(SCALE))
  got = jax.jit(jax.value_and_grad(loss, (0, 1, 2, 8)))(*args)
  assert dense.error(got, want) < 1e-6
  mesh, axes = dense.mesh_of(4, 2)
  local = lambda *arguments: loss(*arguments, axis_name=axes)
  many = dense.sharded(local, mesh, axes, (*[P(axes)] * 8, P()))
  assert dense.error(jax.device_get(jax.jit(jax.value_and_grad(many, (0, 1, 2, 8)))(*args)), want) < 1e-6


def test_without_correction_and_others_it_is_the_softmax_of_the_batch():
  user, item = dense.unit(B, D, 0), dense.unit(B, D, 1)
  ids = jnp.arange(B)
  plain = lambda log_q: sampled_softmax_loss(user, item, ids=ids, log_q=log_q, logit_scale=SCALE)
  want = -jnp.diagonal(jax.nn.log_softmax(SCALE * user @ item.T)).mean()
  assert plain(jnp.zeros(B)) == pytest.approx(float(want), rel=1e-6)
  assert plain(jnp.full(B, -7.0)) == pytest.approx(float(want), rel=1e-5)  # only differences of frequencies count
  alone = sampled_softmax_loss(user, item, ids=jnp.zeros(B, jnp.int32), log_q=jnp.zeros(B), logit_scale=SCALE)
  assert alone == 0  # nobody has a negative


@pytest.mark.parametrize("corrected", [True, False])
def test_only_with_the_correction_frequent_items_get_higher_scores(corrected):
  """Items without features, each with a score of its own, drawn by q: the best scores are log q (section 3)."""
  rng, q = np.random.default_rng(0), 2.0 ** -np.arange(1, 9)
  ids = jnp.asarray(rng.choice(8, (300, 32), p=q / q.sum()), jnp.int32)
  log_q = jnp.log(jnp.asarray(q / q.sum(), jnp.float32)) * float(corrected)
  ones = jnp.ones((32, 1))
  loss = lambda scores, ids: sampled_softmax_loss(
    ones, scores[ids][:, None], ids=ids, log_q=log_q[ids], logit_scale=1.0
  )
  descend = lambda scores, ids: (scores - 0.5 * jax.grad(loss)(scores, ids), None)
  scores = jax.jit(lambda: jax.lax.scan(descend, jnp.zeros(8), ids)[0])()
  slope = np.polyfit(np.log(q), scores, 1)[0]
  assert slope > 0.7 if corrected else abs(slope) < 0.2


def test_one_item_a_step_is_the_algorithm_of_the_paper():
  share, items = 0.25, [3, 1, 3, 3, 2, 1, 3, 1, 1, 3] * 3
  state = ItemFrequency.empty(8)
  last, gap, seen = dict.fromkeys(items, -1), dict.fromkeys(items, 0.0), dict.fromkeys(items, 0)
  update = jax.jit(lambda state, item, step: state.updated(item, step, share=share))
  for step, item in enumerate(items):
    seen[item] += 1
    alpha = max(share, 1 / seen[item])  # the first gaps have equal weights
    gap[item] = (1 - alpha) * gap[item] + alpha * (step - last[item])
    last[item] = step
    state = update(state, jnp.asarray([item], jnp.int32), jnp.int32(step))
  found = state.log_frequency(jnp.asarray([1, 2, 3], jnp.int32))
  np.testing.assert_allclose(found, [-np.log(gap[item]) for item in (1, 2, 3)], rtol=1e-5)


@pytest.mark.parametrize(("slots", "hashes"), [(64, 1), (23, 4)])
def test_frequencies_of_batches_are_found_also_where_items_share_slots(slots, hashes):
  rng = np.random.default_rng(0)
  q = rng.dirichlet(np.full(40, 1.0)) * 0.8 + 0.2 / 40
  state, update = ItemFrequency.empty(slots, hashes), jax.jit(lambda s, i, n: s.updated(i, n, share=0.005))
  for step in range(400):
    state = update(state, jnp.asarray(rng.choice(40, 32, p=q), jnp.int32), jnp.int32(step))
  found = np.exp(state.log_frequency(jnp.arange(40, dtype=jnp.int32)))
  if hashes == 1:
    np.testing.assert_allclose(found, q, rtol=0.5, atol=2e-3)
    assert np.abs(found / q - 1).mean() < 0.12
  else:
    assert (found > 0.6 * q).all() and np.median(found / q) < 1.35  # never far below
    one = np.exp(
      ItemFrequency(*(leaf[:1] for leaf in jax.tree.leaves(state))).log_frequency(jnp.arange(40, dtype=jnp.int32))
    )
    assert np.median(one / q) > 1.5  # one hash function alone adds up what shares a slot
  drifted = state
  for step in range(400, 500):
    drifted = update(drifted, jnp.zeros(32, jnp.int32), jnp.int32(step))
  assert np.exp(drifted.log_frequency(jnp.zeros(1, jnp.int32)))[0] > 0.95  # the estimate follows the stream
