"""Metrics against values counted by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, recall_score, top_k_accuracy_score

from mmjax.evaluate import metrics

SCORES = np.array([[0.9, 0.8, 0.1], [0.5, 0.6, 0.7], [0.3, 0.2, 0.1]])


def unit(rows):
  return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_ranks_by_hand():
  np.testing.assert_array_equal(metrics.ranks(SCORES, np.eye(3, dtype=bool)), [1, 2, 3])


def test_any_positive_counts():
  positive = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 0]], bool)
  np.testing.assert_array_equal(metrics.ranks(SCORES, positive), [2, 1, 4])


def test_ties_and_nan_count_against_the_query():
  scores = np.array([[1.0, 1.0, 1.0], [1.0, np.nan, 0.0], [np.nan, 0.0, 0.0]])
  np.testing.assert_array_equal(metrics.ranks(scores, np.eye(3, dtype=bool)[[0, 0, 0]]), [3, 2, 4])


def test_recalls_by_hand():
  values = metrics.recalls(np.array([1, 3, 7, 20]), "image_retrieval")
  assert values == {
    "image_retrieval_recall@1": 0.25,
    "image_retrieval_recall@5": 0.5,
    "image_retrieval_recall@10": 0.75,
    "image_retrieval_median_rank": 5.0,
  }


def test_chunks_do_not_change_ranks(monkeypatch):
  rng = np.random.default_rng(0)
  query, gallery = unit(rng.normal(size=(23, 8))), unit(rng.normal(size=(40, 8)))
  ids = rng.integers(0, 12, 23), rng.integers(0, 12, 40)
  whole = metrics.ranks(query @ gallery.T, ids[0][:, None] == ids[1][None], tie=metrics.TIE)
  monkeypatch.setattr(metrics, "_CHUNK", 3 * 40)
  assert len(list(metrics._chunks(23, 40))) == 8
  np.testing.assert_array_equal(metrics.retrieval_ranks(query, gallery, *ids), whole)


def test_collapsed_embeddings_find_nothing():
  rows = np.repeat(unit(np.random.default_rng(0).normal(size=(1, 33))), 50, axis=0)
  np.testing.assert_array_equal(metrics.retrieval_ranks(rows, rows, range(50), range(50)), [50] * 50)


def test_chance_is_what_random_orders_give():
  rng = np.random.default_rng(0)
  ids, query = np.repeat(np.arange(10), [1, 2, 3, 4, 1, 2, 3, 4, 1, 2]), np.arange(10)
  rank = metrics.ranks(rng.random((4000, len(ids))), np.tile(query, 400)[:, None] == ids[None])
  chance, seen = metrics.chance_recalls(query, ids, "x"), metrics.recalls(rank, "x")
  for name in ("x_recall@1", "x_recall@5", "x_recall@10"):
    assert seen[name] == pytest.approx(chance[name], abs=0.03)  # 4 standard errors of 4000 draws
  assert abs(seen["x_median_rank"] - chance["x_median_rank"]) <= 1
  assert metrics.chance_recalls(range(100), range(100), "x")["x_recall@5"] == pytest.approx(0.05)


def test_classification_equals_scikit_learn():
  rng = np.random.default_rng(0)
  logits, labels = rng.normal(size=(300, 9)), rng.integers(0, 7, 300)  # two classes have no example
  logits[np.arange(300), labels] += 1.0
  found, guess = metrics.classification(logits, labels), logits.argmax(axis=1)
  assert found["acc1"] == pytest.approx(accuracy_score(labels, guess))
  top5 = top_k_accuracy_score(labels, logits, k=5, labels=range(9))
  assert found["acc5"] == pytest.approx(top5)
  recall = recall_score(labels, guess, labels=range(7), average="macro")
  assert found["mean_per_class_recall"] == pytest.approx(recall)


def test_equal_logits_are_never_right():
  assert set(metrics.classification(np.zeros((10, 6)), [0] * 10).values()) == {0.0}
  assert "acc5" not in metrics.classification(np.zeros((10, 5)), [0] * 10)
