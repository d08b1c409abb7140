"""Verification: margins, error rates by hand, and pairs of examples."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.data import ClassLabel, DataError
from mmjax.data.columns.sound import PADDED
from mmjax.encoders import AstConfig
from mmjax.errors import ConfigError
from mmjax.evaluate.verification import Trials, all_pairs, equal_error_rate, verification
from mmjax.evaluators.verification import simple_features
from mmjax.models import VerifierConfig
from mmjax.objectives import ArcFace, CosFace, arcface_cosines, cosface_cosines
from mmjax.types import Encoded

COSINES = jnp.asarray([[0.3, -0.2, 0.9], [-0.99, 0.1, 0.2]], jnp.float32)
LABELS = jnp.asarray([0, 0], jnp.int32)


def test_arcface_adds_an_angle_to_the_right_identity_and_falls_with_it():
  found = arcface_cosines(COSINES, LABELS, margin=0.5)
  np.testing.assert_allclose(found[0, 0], np.cos(np.arccos(0.3) + 0.5), rtol=1e-6)
  np.testing.assert_allclose(found[1, 0], -0.99 - 0.5 * np.sin(0.5), rtol=1e-6)
  np.testing.assert_array_equal(found[:, 1:], COSINES[:, 1:])
  cosines = jnp.linspace(-1, 1, 101, dtype=jnp.float32)[:, None]
  zeros = jnp.zeros(101, jnp.int32)
  value, gradient = jax.vjp(lambda c: arcface_cosines(c, zeros, margin=0.5), cosines)
  assert (jnp.diff(value[:, 0]) > 0).all() and jnp.isfinite(gradient(jnp.ones_like(value))[0]).all()
  np.testing.assert_allclose(arcface_cosines(COSINES, LABELS, margin=0.0), COSINES, atol=2e-6)


def test_cosface_subtracts_from_the_right_cosine():
  expected = COSINES.at[:, 0].add(-0.35)
  np.testing.assert_allclose(cosface_cosines(COSINES, LABELS), expected, rtol=1e-6)


def test_a_term_is_the_cross_entropy_of_scaled_cosines_and_leaves_unknown_identities_out():
  model = SimpleNamespace(identity_cosines=lambda encoded: COSINES)
  batch = {"audio": None, "label": jnp.asarray([2, -1], jnp.int32)}
  forward = SimpleNamespace(model=model, batch=batch, encoded={"audio": None})
  scores = CosFace(scale=16.0, margin=0.35).over_rows(forward, None)
  logits = 16 * np.array([0.3, -0.2, 0.9 - 0.35])
  np.testing.assert_allclose(scores["loss"].losses[0], np.log(np.exp(logits).sum()) - logits[2], rtol=1e-5)
  assert scores["loss"].weights.tolist() == [1, 0] == scores["accuracy"].weights.tolist()
  assert scores["accuracy"].losses[0] == 1


def test_cosines_are_of_unit_vectors():
  rng = np.random.default_rng(0)
  model = VerifierConfig(towers={"audio": AstConfig(width=8, num_heads=2)}, embed_dim=4, num_identities=3).build()
  pooled, projection, vectors = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 8), (8, 4), (4, 3)))
  params = {"audio_projection": {"kernel": projection}, "identity_projection": {"kernel": vectors}}
  encoded = {"audio": Encoded(jnp.asarray(pooled)[:, None], jnp.ones((2, 1), bool), jnp.asarray(pooled))}
  found = model.apply({"params": params}, encoded, method="identity_cosines")
  rows = pooled @ projection
  expected = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ (vectors / np.linalg.norm(vectors, axis=0))
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_equal_error_rate_by_hand():
  assert equal_error_rate(np.array([0, 0, 1.0]), np.array([1, 0, 0.0])) == 0.0
  scores = np.array([0.9, 0.8, 0.4, 0.7, 0.3, 0.2, 0.1])
  same = np.array([1, 1, 1, 0, 0, 0, 0], bool)  # at .5: 1 of 3 refused and 1 of 4 accepted; at .4: 0 and 1 of 4
  found = verification(Trials(scores, same))
  assert found["eer"] == pytest.approx(0.25) and found["auc"] == 11 / 12 and "tar@far=0.01" not in found


def test_a_threshold_accepts_no_more_than_the_rate():
  rng = np.random.default_rng(0)
  scores = np.concatenate([rng.normal(1, 1, 300), rng.normal(0, 1, 1000)])
  same = np.arange(1300) < 300
  found = verification(Trials(scores, same))
  threshold = np.sort(scores[300:])[-10]  # ten of 1000 are at least this
  assert found["tar@far=0.01"] == pytest.approx((scores[:300] >= threshold).mean(), abs=4e-3)
  assert 0.6 < found["balanced_accuracy"] < 0.75 and 0.28 < found["eer"] < 0.35
  assert verification(Trials(np.full(1300, np.nan), same))["auc"] == 0.0


def test_all_pairs_are_taken_once():
  rows = np.eye(3)[[0, 0, 1]]
  trials = all_pairs(rows, np.array(["a", "a", "b"]))
  assert trials.scores.tolist() == [1, 0, 0] and trials.same.tolist() == [True, False, False]


def test_simple_features_are_the_mean_of_the_frames_of_the_clip():
  rows = np.array([[[1.0, 2], [3, 4], [PADDED, PADDED]]])
  np.testing.assert_array_equal(simple_features(rows), [[2.0, 3.0]])
  assert simple_features(np.zeros((2, 4, 4, 3))).shape == (2, 48)


def test_identities_that_were_never_seen_are_accepted_where_it_is_said():
  fitted = {"classes": ["a", "b"], "counts": [1, 1]}
  record = {"id": "r", "label": "c"}
  assert ClassLabel(unseen="accept").row(record, None, fitted) == -1
  with pytest.raises(DataError, match="r: the class 'c' is not one of the 2"):
    ClassLabel().row(record, None, fitted)


def test_settings_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match="margin is 2"):
    ArcFace(margin=2.0)
  with pytest.raises(ValueError, match="scale is 0"):
    CosFace(scale=0.0)
  with pytest.raises(ValueError, match="a verifier has one tower"):
    VerifierConfig(towers={})
  with pytest.raises(ConfigError, match="arc_face reads 'image', and the model has the tower audio"):
    ArcFace(source="image").check(VerifierConfig(), {})
