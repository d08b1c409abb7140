"""The further objectives against their papers' formulas, written out with numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.objectives import (
  align_loss,
  clip_loss,
  dcl_loss,
  distillation_loss,
  feature_distillation_loss,
  focal_loss,
  hinge_loss,
  semi_hard_triplet_loss,
  siglip_loss,
  sogclr_loss,
  triplet_loss,
  unicl_loss,
)
from mmjax.objectives.losses.labelled import supcon_loss
from tests.objectives import dense

N, D, SCALE = 6, 4, 5.0
LABELS = jnp.array([0, 1, 0, 2, 1, 3])
SAME = np.asarray(LABELS)[:, None] == np.asarray(LABELS)[None, :]
EYE = np.eye(N, dtype=bool)


@pytest.fixture(scope="module")
def pairs():
  x, y = dense.unit(N, D, 0), dense.unit(N, D, 1)
  return x, y, np.asarray(x, np.float64) @ np.asarray(y, np.float64).T


def log_sum(s, keep, axis):
  return np.log((np.exp(s) * keep).sum(axis))


def test_dcl_leaves_the_positive_out_of_the_denominator(pairs):
  x, y, s = pairs
  s = SCALE * s
  want = (log_sum(s, ~EYE, 1) + log_sum(s, ~EYE, 0)).mean() / 2 - np.diag(s).mean()
  assert dcl_loss(x, y, logit_scale=SCALE, tile_size=4) == pytest.approx(want, rel=1e-5)
  assert dcl_loss(x[:1], y[:1], logit_scale=SCALE) == 0  # no negative at all


def test_unicl_averages_over_all_pairs_of_equal_label(pairs):
  x, y, s = pairs
  s = SCALE * s
  rows = (log_sum(s, 1, 1)[:, None] - s) * SAME / SAME.sum(1)[:, None]
  columns = (log_sum(s, 1, 0)[None, :] - s) * SAME / SAME.sum(0)[None, :]
  want = (rows.sum() + columns.sum()) / (2 * N)
  assert unicl_loss(x, y, LABELS, logit_scale=SCALE, tile_size=4) == pytest.approx(want, rel=1e-5)


def test_supcon_compares_no_example_with_itself_and_skips_those_without_a_positive(pairs):
  x = pairs[0]
  s = SCALE * np.asarray(x, np.float64) @ np.asarray(x, np.float64).T
  positives = SAME & ~EYE
  each = ((log_sum(s, ~EYE, 1)[:, None] - s) * positives).sum(1) / np.maximum(positives.sum(1), 1)
  assert supcon_loss(x, LABELS, logit_scale=SCALE, tile_size=4) == pytest.approx(each.mean(), rel=1e-5)


def test_distillation_is_the_cross_entropy_from_the_teacher_who_gets_no_gradient(pairs):
  x, y, s = pairs
  teachers = dense.unit(N, 3, 2), dense.unit(N, 3, 3)
  t = 2.0 * np.asarray(teachers[0], np.float64) @ np.asarray(teachers[1], np.float64).T
  want = 0.0
  for axis in (0, 1):
    q = np.exp(t - log_sum(t, 1, axis)[(None, slice(None)) if axis == 0 else (slice(None), None)])
    log_p = SCALE * s - log_sum(SCALE * s, 1, axis)[(None, slice(None)) if axis == 0 else (slice(None), None)]
    want -= (q * log_p).sum() / (2 * N)
  loss = lambda t: distillation_loss(x, y, t, teachers[1], logit_scale=SCALE, teacher_scale=2.0, tile_size=4)
  value, gradient = jax.value_and_grad(loss)(teachers[0])
  assert value == pytest.approx(want, rel=1e-5)
  assert bool((gradient == 0).all())


def test_features_of_the_teacher_are_the_target_and_get_no_gradient():
  x, t = (np.asarray(dense.unit(N, width, seed), np.float64) for width, seed in ((4, 2), (3, 3)))
  projection = np.random.default_rng(0).standard_normal((4, 3))
  rows = x @ projection
  cosines = (rows * t).sum(1) / np.linalg.norm(rows, axis=1)
  given = [jnp.asarray(array, jnp.float32) for array in (x, t, projection)]
  loss = lambda x, t, projection, **how: feature_distillation_loss(x, t, projection=projection, **how)
  value, (_, of_teacher) = jax.value_and_grad(loss, (0, 1))(*given)
  assert value == pytest.approx(1 - cosines.mean(), rel=1e-5) and not of_teacher.any()
  assert loss(*given, distance="l2") == pytest.approx(((rows - t) ** 2).sum(1).mean(), rel=1e-5)
  assert feature_distillation_loss(given[1], given[1]) == pytest.approx(0, abs=1e-6)
  with pytest.raises(ValueError, match="have 4 dimensions, those of the teacher 3"):
    feature_distillation_loss(given[0], given[1])


def test_focal_turns_easy_pairs_down_and_is_siglip_at_gamma_0(pairs):
  x, y, s = pairs
  z = np.where(EYE, 1, -1) * (SCALE * s - 1)
  want = ((1 / (1 + np.exp(z))) ** 2 * np.log1p(np.exp(-z))).sum() / N
  options = {"logit_scale": SCALE, "logit_bias": -1.0}
  assert focal_loss(x, y, **options) == pytest.approx(want, rel=1e-5)
  assert focal_loss(x, y, gamma=0.0, **options) == pytest.approx(float(siglip_loss(x, y, **options)), rel=1e-6)


def test_margins_over_all_negatives_and_over_the_hardest(pairs):
  x, y, s = pairs
  pair = np.diag(s)
  images, texts = np.maximum(0.2 + s - pair[:, None], 0), np.maximum(0.2 + s - pair[None, :], 0)
  want = ((images + texts) * ~EYE).sum() / N
  assert hinge_loss(x, y, tile_size=4) == pytest.approx(want, rel=1e-5)
  hardest = np.where(EYE, 0, images).max(1) + np.where(EYE, 0, texts).max(0)
  assert triplet_loss(x, y, tile_size=4) == pytest.approx(hardest.mean(), rel=1e-5)
  gradient = jax.grad(lambda x: triplet_loss(x, y, tile_size=4))(x)
  for i in range(N):  # a row's own term pulls towards its hardest negative and away from its pair
    step = 1e-3 * gradient[i]
    lower = triplet_loss(x.at[i].add(-step), y)
    assert gradient[i] @ gradient[i] == pytest.approx(float(triplet_loss(x, y) - lower) / 1e-3, abs=5e-3)


def test_sogclr_divides_by_the_running_normaliser(pairs):
  x, y, s = pairs
  g = [(np.exp(SCALE * s - SCALE * np.diag(s)[:, None]) * ~EYE).sum(1) / (N - 1)]
  g += [(np.exp(SCALE * s - SCALE * np.diag(s)[None, :]) * ~EYE).sum(0) / (N - 1)]
  unseen = jnp.full(N, -jnp.inf)
  loss, log_u = sogclr_loss(x, y, (unseen, unseen), logit_scale=SCALE, gamma=0.5)
  assert loss == pytest.approx(1, rel=1e-6)  # u is g itself
  np.testing.assert_allclose(np.exp(log_u[0]), g[0], rtol=1e-5)
  old = (jnp.zeros(N), jnp.log(jnp.full(N, 2.0)))
  loss, log_u = sogclr_loss(x, y, old, logit_scale=SCALE, gamma=0.25)
  u = [0.75 * 1 + 0.25 * g[0], 0.75 * 2 + 0.25 * g[1]]
  np.testing.assert_allclose(np.exp(log_u[1]), u[1], rtol=1e-5)
  assert loss == pytest.approx(((g[0] / u[0]).mean() + (g[1] / u[1]).mean()) / 2, rel=1e-5)


def test_semi_hard_negatives_score_no_higher_than_the_pair_and_slack_lets_the_harder_in(pairs):
  x, y, s = pairs
  pair, hidden = np.diag(s), SAME | EYE
  for slack in (0.0, 0.3, 2.0):
    want = 0.0
    for scores, same in ((s, hidden), (s.T, hidden.T)):
      for i in range(N):
        negatives = scores[i][~same[i]]
        admitted = negatives[negatives <= pair[i] + slack]
        negative = admitted.max() if len(admitted) else negatives.min()
        want += max(0.0, 0.2 + negative - pair[i]) / N
    assert semi_hard_triplet_loss(x, y, slack=slack, ids=LABELS, tile_size=4) == pytest.approx(want, rel=1e-5)
  assert semi_hard_triplet_loss(x, y, slack=2.0) == pytest.approx(float(triplet_loss(x, y)), rel=1e-6)
  assert (s > pair[:, None]).any() and semi_hard_triplet_loss(x, y) < triplet_loss(x, y)
  assert semi_hard_triplet_loss(x, y, ids=jnp.zeros(N, jnp.int32)) == 0  # no negative at all


def test_align_smooths_the_target_over_the_columns_that_count(pairs):
  x, y, s = pairs
  s, allowed = SCALE * s, ~SAME | EYE
  want = 0.0
  for scores, keep in ((s, allowed), (s.T, allowed.T)):
    log_p = scores - np.log((np.exp(scores) * keep).sum(1, keepdims=True))
    target = 0.7 * EYE + 0.3 * keep / keep.sum(1, keepdims=True)
    want -= (target * log_p).sum() / (2 * N)
  options = dict(logit_scale=SCALE, ids=LABELS, tile_size=4)
  assert align_loss(x, y, label_smoothing=0.3, **options) == pytest.approx(want, rel=1e-5)
  assert align_loss(x, y, label_smoothing=0.0, **options) == pytest.approx(float(clip_loss(x, y, **options)), rel=1e-5)
