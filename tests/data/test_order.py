"""The order of examples, computed at any position alone."""

import time
import tracemalloc

import grain.python as grain
import numpy as np
import pytest

from mmjax.data.order import Order, Part, interleave


def take(order, start, stop):
  return [order(position) for position in range(start, stop)]


def test_one_part_is_shuffled_as_grain_does():
  """Runs from before there were parts go on as they were."""
  plain = grain.MapDataset.range(23).seed(7).shuffle().repeat()
  assert take(Order([Part(0, 23)], 7), 0, 60) == [(n // 23, plain[n]) for n in range(60)]


@pytest.mark.parametrize("weights", [None, (0.7, 0.3)])
def test_no_example_comes_twice(weights):
  parts = [Part(0, 50, 1, weights and weights[0]), Part(50, 30, 1 if weights else 4, weights and weights[1])]
  pairs = take(Order(parts, 1), 0, 500)
  assert len(set(pairs)) == 500
  assert take(Order(parts, 1), 100, 300) == pairs[100:300], "the order depends on where it was begun"
  assert take(Order(parts, 2), 0, 500) != pairs


def test_an_epoch_with_repeats_is_exact():
  order = Order([Part(0, 50), Part(50, 3, repeats=4)], 1)
  assert order.num_records == 62
  for epoch in range(3):
    found = take(order, 62 * epoch, 62 * (epoch + 1))
    assert sorted(index for _, index in found) == [*range(50), *sorted([50, 51, 52] * 4)]
    assert {e for e, index in found if index >= 50} == set(range(4 * epoch, 4 * epoch + 4))


def test_shares_are_exact_over_a_period_and_even_within():
  pattern, before = interleave([0.5, 0.25, 0.25])
  assert pattern.tolist() == [0, 1, 2, 0]
  weights = np.array([0.61, 0.3, 0.0001, 0.0899])
  pattern, before = interleave(weights)
  assert len(pattern) == 10_000
  np.testing.assert_array_equal(before[-1] / 10_000, weights)
  ideal = np.arange(10_001)[:, None] * weights
  assert np.abs(before - ideal).max() <= 2, "a part runs ahead of its share"


def test_a_billion_records_cost_no_memory_and_little_time():
  tracemalloc.start()
  begun = time.process_time()
  order = Order([Part(0, 10**9), Part(10**9, 10**9)], 0)
  pairs = take(order, 10**9, 10**9 + 1000)
  assert time.process_time() - begun < 1
  assert tracemalloc.get_traced_memory()[1] < 2**21
  tracemalloc.stop()
  assert len(set(pairs)) == 1000 and np.ptp([index for _, index in pairs]) > 1.5e9
