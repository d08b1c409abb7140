"""LazyRows stand for an array, and make what is asked for."""

import numpy as np
import pytest

from mmjax.data.lazy_rows import LazyRows

PLACES = np.array([4, 2, 2, 7, 7, 7])
TABLE = np.arange(8 * 3 * 2, dtype=np.float32).reshape(8, 3, 2)


@pytest.mark.parametrize(
  "index",
  [
    3, -1, slice(None), slice(1, 3), slice(4, 4), np.array([5, 0, 0]), PLACES > 3,
    (slice(2, 5), slice(None), slice(None)), (slice(2, 5), slice(0, 2), 1), (1, slice(1, 3)), (slice(4, 4), 0),
  ],
)  # fmt: skip
def test_an_index_picks_what_it_picks_of_the_array(index):
  rows = LazyRows(PLACES, (3, 2), lambda wanted: TABLE[wanted])
  found = rows[index]
  np.testing.assert_array_equal(found, TABLE[PLACES][index])
  assert found.shape == TABLE[PLACES][index].shape
  np.testing.assert_array_equal(np.asarray(rows), TABLE[PLACES])


def test_rows_of_one_place_are_made_once_and_others_not_at_all():
  made = []
  rows = LazyRows(PLACES, (3, 2), lambda wanted: made.extend(wanted) or TABLE[wanted])
  assert rows.shape == (6, 3, 2) and len(rows) == 6 and made == []
  rows[1:5]
  assert made == [2, 7]
