"""Captions and answers: what is predicted from where, and what it costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.objectives import (
  answer_class_loss,
  answer_log_likelihood,
  answer_ranking_loss,
  answer_score_loss,
  answer_scores,
  batch_mean,
  caption_loss,
  relevance_loss,
)
from tests.objectives.per_example import assert_finite, cross_entropy, normal

IDS = jnp.asarray([[1, 5, 4, 2, 0], [1, 2, 0, 0, 0], [0, 0, 0, 0, 0]], jnp.int32)
LOGITS = normal(3, 5, 7)
EACH = cross_entropy(LOGITS[:, :-1], IDS[:, 1:])  # place t is about token t + 1


def test_a_caption_is_predicted_one_ahead_and_padding_is_not():
  losses, weights, (gradient,) = assert_finite(lambda logits: caption_loss(logits, IDS, pad_id=0), LOGITS)
  np.testing.assert_allclose(losses, [EACH[0, :3].mean(), EACH[1, 0], 0], rtol=1e-5)
  np.testing.assert_array_equal(weights, [1, 1, 0])
  read = np.asarray(gradient).any(-1)
  np.testing.assert_array_equal(read, [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0] * 5])


def test_per_token_the_batch_mean_is_the_mean_over_all_tokens():
  result = caption_loss(LOGITS, IDS, pad_id=0, per="token")
  np.testing.assert_array_equal(result.weights, [3, 1, 0])
  assert batch_mean(*result) == pytest.approx((EACH[0, :3].sum() + EACH[1, 0]) / 4, rel=1e-5)


def test_a_prefix_is_given_and_not_predicted():
  prefix = jnp.asarray([2, 2, 0], jnp.int32)  # [begin, 5] and [begin, end] are given
  losses, weights, _ = assert_finite(lambda logits: caption_loss(logits, IDS, pad_id=0, prefix=prefix), LOGITS)
  np.testing.assert_allclose(losses, [EACH[0, 1:3].mean(), 0, 0], rtol=1e-5)
  np.testing.assert_array_equal(weights, [1, 0, 0])


def test_label_smoothing_spreads_its_share_over_the_vocabulary():
  everywhere = np.stack([cross_entropy(LOGITS[:, :-1], np.full((3, 4), w)) for w in range(7)]).mean(0)
  want = 0.9 * EACH[0, :3].mean() + 0.1 * everywhere[0, :3].mean()
  assert caption_loss(LOGITS, IDS, pad_id=0, label_smoothing=0.1).losses[0] == pytest.approx(want, rel=1e-5)


def test_ranking_sums_each_candidates_tokens():
  ids = jnp.stack([IDS[:2], IDS[:2][::-1]], 1)  # [2 questions, 2 candidates, 5]
  logits = normal(2, 2, 5, 7, seed=3)
  got = answer_log_likelihood(logits, ids, pad_id=0)
  each = cross_entropy(logits[:, :, :-1], ids[:, :, 1:]) * (np.asarray(ids)[:, :, 1:] != 0)
  np.testing.assert_allclose(got, -each.sum(-1), rtol=1e-5)
  losses, weights, _ = assert_finite(lambda x: answer_ranking_loss(x, jnp.asarray([1, -1], jnp.int32)), got)
  np.testing.assert_allclose(losses, [cross_entropy(got, [1, 0])[0], 0], rtol=1e-5)
  np.testing.assert_array_equal(weights, [1, 0])


def test_answer_classes_hard_and_soft_with_the_questions_weights():
  logits, weights = normal(3, 4), jnp.asarray([0.5, 1.0, 2.0])
  answer = jnp.asarray([2, -1, 0], jnp.int32)
  losses, counted, _ = assert_finite(lambda x: answer_class_loss(x, answer, weights), logits)
  np.testing.assert_allclose(losses, np.where([1, 0, 1], cross_entropy(logits, [2, 0, 0]), 0), rtol=1e-5)
  np.testing.assert_array_equal(counted, [0.5, 0, 2])
  scores = answer_scores(jnp.asarray([[0, 1, 3, 10], [0, 0, 0, 0], [2, 0, 0, 0]], jnp.int32))
  np.testing.assert_allclose(scores, [[0, 1 / 3, 1, 1], [0] * 4, [2 / 3, 0, 0, 0]], rtol=1e-6)
  losses, counted, _ = assert_finite(lambda x: answer_score_loss(x, scores, weights), logits)
  p, s = 1 / (1 + np.exp(-np.asarray(logits, np.float64))), np.asarray(scores)
  np.testing.assert_allclose(losses, -(s * np.log(p) + (1 - s) * np.log(1 - p)).sum(1), rtol=1e-5)
  np.testing.assert_array_equal(counted, [0.5, 0, 2])


@pytest.mark.parametrize("kind", ["bce", "squared", "absolute"])
def test_relevance_against_its_definition_and_with_certain_logits(kind):
  logits, target = normal(2, 3, 4) * 3.0, jnp.asarray(np.random.default_rng(1).random((2, 3, 4)) < 0.3, jnp.float32)
  p, t = 1 / (1 + np.exp(-np.asarray(logits, np.float64))), np.asarray(target)
  want = {"bce": -(t * np.log(p) + (1 - t) * np.log(1 - p)), "squared": (p - t) ** 2, "absolute": abs(p - t)}[kind]
  losses, weights, _ = assert_finite(lambda x: relevance_loss(x, target, kind=kind), logits)
  np.testing.assert_allclose(losses, want.mean((1, 2)), rtol=1e-4)
  np.testing.assert_array_equal(weights, 1)
  assert_finite(lambda x: relevance_loss(x, target, kind=kind), logits * 1e4)


def test_only_bce_still_teaches_where_a_relevant_pixel_is_confidently_missed():
  slope = lambda kind: jax.grad(lambda x: relevance_loss(x, jnp.ones((1, 1, 1)), kind=kind).losses[0])(
    jnp.full((1, 1, 1), -10.0)
  )
  assert abs(slope("bce")[0, 0, 0]) > 0.99
  assert abs(slope("squared")[0, 0, 0]) < 1e-4 and abs(slope("absolute")[0, 0, 0]) < 1e-4
