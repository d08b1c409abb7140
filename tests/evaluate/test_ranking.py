"""Metrics of recommendation by hand, chance as the mean of all orders, and neighbours as dense matrices give them."""

import itertools

import numpy as np
import pytest
from scipy.sparse import csr_array

from mmjax.evaluate.item_neighbours import item_neighbours, neighbour_scores
from mmjax.evaluate.ranking import chance_ranking, coverage, first_items, ranking_metrics


def test_hit_rate_and_ndcg_by_hand():
  found = ranking_metrics(np.array([1, 3, 4, 11]), (3, 10))
  assert found == pytest.approx(
    {
      "hit_rate@3": 2 / 4,
      "ndcg@3": (1 + 1 / 2) / 4,
      "hit_rate@10": 3 / 4,
      "ndcg@10": (1 + 1 / 2 + 1 / np.log2(5)) / 4,
    }
  )


def test_chance_is_the_mean_over_all_orders():
  orders = [ranking_metrics(np.array([order.index(0) + 1]), (2, 9)) for order in itertools.permutations(range(4))]
  want = {name: np.mean([each[name] for each in orders]) for name in orders[0]}
  assert chance_ranking(np.array([4]), (2, 9)) == pytest.approx(want)
  assert chance_ranking(np.array([4, 100]), (10,))["hit_rate@10"] == pytest.approx((1 + 0.1) / 2)


def test_coverage_counts_each_item_once_and_lists_hold_what_is_finite():
  scores = np.array([[0.1, 0.9, -np.inf, 0.5], [0.2, -np.inf, -np.inf, -np.inf]])
  lists = first_items(scores, 3)
  assert lists.tolist() == [[1, 3, 0], [0, -1, -1]]
  assert coverage(lists, 4, (1, 2, 3)) == {"coverage@1": 2 / 4, "coverage@2": 3 / 4, "coverage@3": 3 / 4}
  assert first_items(scores, 9).shape == (2, 4)


@pytest.mark.parametrize("cells", [16_000_000, 20])  # all items at once, or two at a time
def test_neighbours_are_those_of_dense_cosines(cells, monkeypatch):
  monkeypatch.setattr("mmjax.evaluate.item_neighbours._CELLS", cells)
  bought = (np.random.default_rng(0).random((30, 10)) < 0.3).astype(np.float32)
  bought[:, 4] = 0  # an item that nobody has
  lengths = np.maximum(np.linalg.norm(bought, axis=0), 1)
  cosines = (bought / lengths).T @ (bought / lengths)
  np.fill_diagonal(cosines, 0)
  kept = np.where(cosines >= np.sort(cosines, axis=1)[:, -3][:, None], cosines, 0)
  near = item_neighbours(csr_array(bought), 3)
  np.testing.assert_allclose(near.toarray(), kept, rtol=1e-6)
  np.testing.assert_allclose(neighbour_scores(csr_array(bought[:5]), near), bought[:5] @ kept.T, rtol=1e-5)
