"""Matching, masks and re-ranking: values by hand, and what constants and broken scores must not gain."""

import numpy as np
import pytest

from mmjax.evaluate import Shared
from mmjax.evaluate.examples import Examples
from mmjax.evaluate.matching import class_report, hardest_texts, match_scores, other_texts
from mmjax.evaluate.overlap import constant_overlaps, mean_overlap, overlaps
from mmjax.evaluate.reranking import candidates, reranked, reranked_ranks
from mmjax.evaluate.retrieval import Embedded
from mmjax.evaluators import MatchedPairs


def test_auc_by_hand_and_constants_at_chance():
  matches = np.array([True, True, False, False])
  metrics, chance = match_scores(np.array([2.0, -1.0, 0.0, -3.0]), matches)
  assert metrics == {"itm_auc": 0.75, "itm_accuracy": 0.75} and chance == {"itm_auc": 0.5, "itm_accuracy": 0.5}
  assert match_scores(np.full(4, 7.0), matches)[0] == {"itm_auc": 0.5, "itm_accuracy": 0.5}
  assert match_scores(np.full(4, np.nan), matches)[0] == {"itm_auc": 0.0, "itm_accuracy": 0.0}


def test_negatives_are_of_other_concepts():
  concepts = np.array([0, 0, 1, 2, 2, 2])
  found = other_texts(concepts)
  assert (concepts[found] != concepts).all() and (found >= 0).all()
  np.testing.assert_array_equal(found, other_texts(concepts))
  np.testing.assert_array_equal(other_texts(np.zeros(3, int)), [-1] * 3)


def test_nothing_can_be_matched_where_all_means_the_same():
  records = [{"concept": 7, "captions": {"name": ["a"]}}] * 2
  shared = Shared()
  shared.once("examples", lambda: Examples("one", "One", records, ("image", "text")))
  assert MatchedPairs().run(None, shared) == []


def test_hardest_text_is_the_nearest_of_another_concept():
  images = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
  texts = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
  concepts, same = np.array([5, 5, 7]), np.array([1, 1, 1])
  np.testing.assert_array_equal(hardest_texts(images, texts, concepts, concepts), [2, 2, 1])
  np.testing.assert_array_equal(hardest_texts(images, texts[:2], same, same[:2]), [-1, -1, -1])


def test_report_is_scikit_learns():
  report = class_report(np.array([0, 0, 2, 2]), np.array([0, 2, 2, 2]), ["no", "never", "yes"])
  assert report["no"] == {"precision": 1.0, "recall": 0.5, "f1-score": pytest.approx(2 / 3), "support": 2.0}
  assert report["yes"]["precision"] == pytest.approx(2 / 3) and "never" not in report
  assert report["macro avg"]["recall"] == 0.75


def test_overlap_by_hand():
  truth = np.zeros((4, 2, 2))
  truth[0, 0], truth[1, 0, 0] = 1, 1  # two pixels, one, none, none
  logits = np.full((4, 2, 2), -5.0)
  logits[0, 0, 0] = logits[1, 0, 0] = logits[2, 1, 1] = 0.1
  np.testing.assert_allclose(overlaps(logits, truth), [0.5, 1.0, 0.0, 1.0])
  np.testing.assert_allclose(overlaps(np.full_like(logits, np.nan), truth), [0, 0, 0, 0])
  everything, nothing = constant_overlaps(truth)
  np.testing.assert_allclose(everything, overlaps(np.ones_like(logits), truth))
  np.testing.assert_allclose(nothing, overlaps(-np.ones_like(logits), truth))
  metrics, chance = mean_overlap(overlaps(logits, truth), everything, nothing)
  assert metrics == {"miou": 0.625} and chance == {"miou": 0.5}


def embedded(rows, ids):
  return Embedded(np.asarray(rows, np.float32), np.asarray(ids))


def test_reranking_by_hand():
  # Similarities of the one query: 0.9, 0.8, 0.7, 0.6; the right item comes third.
  query, gallery = embedded([[1.0, 0.0]], [9]), embedded([[0.9, 0], [0.8, 0], [0.7, 0], [0.6, 0]], [1, 2, 9, 4])
  scores = {0: 0.5, 1: 3.0, 2: 1.0, 3: 9.0}
  asked = []

  def match(queries, items):
    asked.extend(zip(queries.tolist(), items.tolist()))
    return np.array([scores[item] for item in items.tolist()])

  after, before = reranked_ranks(query, gallery, match, top=3)
  assert (after.tolist(), before.tolist(), asked) == ([2], [3], [(0, 0), (0, 1), (0, 2)])
  assert reranked_ranks(query, gallery, match, top=2)[0].tolist() == [3]  # no candidate: it keeps its place
  metrics, chance, plain = reranked(query, gallery, match, 3, "x")
  assert (metrics["x_median_rank"], plain["x_median_rank"], chance["x_recall@1"]) == (2, 3, pytest.approx(0.25))


def test_ties_never_help():
  query, gallery = embedded([[1.0]], [1]), embedded([[0.5]] * 4, [1, 2, 3, 4])
  assert candidates(np.full((1, 4), 0.5), np.array([[True, False, False, False]]), 2).tolist() == [[1, 2]]
  even = lambda queries, items: np.zeros(len(items))
  assert reranked_ranks(query, gallery, even, top=2)[0].tolist() == [4]
  assert reranked_ranks(query, gallery, even, top=4)[0].tolist() == [4]
  broken = lambda queries, items: np.full(len(items), np.nan)
  assert reranked_ranks(query, gallery, broken, top=4)[0].tolist() == [5]


def test_chunks_do_not_change_ranks(monkeypatch):
  rng = np.random.default_rng(0)
  queries, gallery = embedded(rng.normal(size=(9, 4)), range(9)), embedded(rng.normal(size=(9, 4)), range(9))
  table = rng.normal(size=(9, 9))
  match = lambda rows, items: table[rows, items]
  whole = reranked_ranks(queries, gallery, match, 5)
  monkeypatch.setattr("mmjax.evaluate.reranking._QUERIES", 4)
  np.testing.assert_array_equal(whole, reranked_ranks(queries, gallery, match, 5))
