"""The momentum teacher: its average, its queue, and the contrast against both, on one device and on eight."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from mmjax.objectives import Queue, clip_loss, enqueue, momentum_contrast_loss, momentum_update
from tests.objectives import dense

B, D, SCALE, ALPHA = 8, 4, 5.0, 0.4
IDS = jnp.asarray([0, 1, 2, 3, 3, 4, 5, 6], jnp.int32)


def test_the_momentum_follows_the_parameters():
  params, momentum = {"a": jnp.asarray([1.0, -2.0])}, {"a": jnp.asarray([3.0, 0.0])}
  got = momentum_update(momentum, params, 0.9)
  np.testing.assert_allclose(got["a"], [0.9 * 3 + 0.1 * 1, 0.1 * -2], rtol=1e-6)
  np.testing.assert_array_equal(momentum_update(params, params, 0.995)["a"], params["a"])
  assert not jax.grad(lambda p: momentum_update(momentum, p, 0.9)["a"].sum())(params)["a"].any()


@pytest.mark.parametrize("batches", [[3, 3, 3, 3], [2, 5, 1, 4, 3], [7, 13, 2]])
def test_a_queue_holds_the_last_rows_whatever_the_batches(batches):
  queue, want, number = Queue.empty(5, 2), deque(maxlen=5), 0
  for size in batches:
    rows = np.arange(number, number + size)
    number += size
    queue = jax.jit(enqueue)(queue, jnp.asarray(rows[:, None] * [1.0, 2.0], jnp.float32), jnp.asarray(rows))
    want.extend(rows)
    assert int(queue.filled) == len(want) == queue.present.sum() and int(queue.pointer) == number % 5
    held = np.asarray(queue.concept)[np.asarray(queue.present)]
    assert sorted(held) == sorted(want)
    np.testing.assert_array_equal(queue.features[: len(held)], held[:, None] * [1.0, 2.0])


def reference(student, teacher, columns, own, allowed, alpha):
  """One direction in float64: cross-entropy to the mixed targets, per row."""
  student, teacher, columns = (np.asarray(x, np.float64) for x in (student, teacher, columns))
  logits, says = SCALE * student @ columns.T, SCALE * teacher @ columns.T
  soft = np.exp(says) * allowed / (np.exp(says) * allowed).sum(1, keepdims=True)
  targets = alpha * soft + (1 - alpha) * own
  log_p = logits - np.log((np.exp(logits) * allowed).sum(1, keepdims=True))
  return -(targets * log_p * allowed).sum(1)


@pytest.fixture(scope="module")
def case():
  x, y, tx, ty = (dense.unit(B, D, seed) for seed in range(4))
  empty = Queue.empty(6, D)
  concept = jnp.asarray([7, 2, 8, 9], jnp.int32)  # the second is row 2's concept, seen an epoch ago
  queues = tuple(enqueue(empty, dense.unit(4, D, seed), concept) for seed in (4, 5))
  allowed = np.zeros((B, B + 6))
  numbers = np.concatenate([IDS, concept])
  allowed[:, : B + 4] = np.asarray(IDS)[:, None] != numbers[None]
  own = np.eye(B, B + 6)
  allowed = np.maximum(allowed, own)
  columns = [np.concatenate([teacher, queue.features]) for teacher, queue in ((ty, queues[1]), (tx, queues[0]))]
  losses = [reference(x, tx, columns[0], own, allowed, ALPHA), reference(y, ty, columns[1], own, allowed, ALPHA)]
  return (x, y, tx, ty), queues, np.stack(losses).mean()


def test_contrast_with_queue_and_soft_targets_against_its_definition(case):
  embeddings, queues, want = case
  loss = lambda *e: momentum_contrast_loss(*e, logit_scale=SCALE, alpha=ALPHA, queues=queues, ids=IDS)
  value, gradients = jax.jit(jax.value_and_grad(loss, range(4)))(*embeddings)
  assert value == pytest.approx(want, rel=1e-5)
  assert gradients[0].any() and gradients[1].any()
  assert not gradients[2].any() and not gradients[3].any()  # the teacher is not taught


def test_eight_devices_give_what_one_gives(case):
  embeddings, queues, want = case
  mesh, axes = dense.mesh_of(4, 2)
  rows = P(axes)

  def loss(x, y, tx, ty, ids, queues, scale):
    return momentum_contrast_loss(x, y, tx, ty, logit_scale=scale, alpha=ALPHA, queues=queues, ids=ids, axis_name=axes)

  many = dense.sharded(loss, mesh, axes, (rows, rows, rows, rows, rows, P(), P()))
  alone = lambda x, y, tx, ty, ids, queues, scale: momentum_contrast_loss(
    x, y, tx, ty, logit_scale=scale, alpha=ALPHA, queues=queues, ids=ids
  )
  args = (*embeddings, IDS, queues, jnp.float32(SCALE))
  got = jax.jit(jax.value_and_grad(many, (0, 1, 6)))(*args)
  assert got[0] == pytest.approx(want, rel=1e-5)
  assert dense.error(jax.device_get(got), jax.jit(jax.value_and_grad(alone, (0, 1, 6)))(*args)) < 1e-6


def test_without_teacher_and_queue_it_is_clip_and_absent_examples_are_absent():
  x, y = dense.unit(B, D, 0), dense.unit(B, D, 1)
  loss = jax.jit(
    lambda x, y, w, alpha: momentum_contrast_loss(x, y, x, y, logit_scale=SCALE, alpha=alpha, weights=w, ids=IDS)
  )
  for w in (jnp.ones(B), jnp.asarray([1, 1, 0, 1, 1, 1, 0, 1], jnp.float32)):
    assert loss(x, y, w, 0.0) == pytest.approx(float(clip_loss(x, y, logit_scale=SCALE, weights=w, ids=IDS)), rel=1e-5)
  value, gradient = jax.jit(jax.value_and_grad(loss))(x, y, jnp.zeros(B), ALPHA)
  assert value == 0 and not gradient.any()  # nobody is there
  assert momentum_contrast_loss(x[:1], y[:1], x[:1], y[:1], logit_scale=SCALE, alpha=ALPHA) == 0  # one pair alone
