"""Weights of training records from a file, and files that do not fit."""

import dataclasses
import re

import numpy as np
import pytest

from mmjax.data import DataError, Reading, Source, Weighted


@dataclasses.dataclass(frozen=True)
class Three(Source):
  """Three texts."""

  def open(self, split, reading):
    return [{"id": str(n), "concept": n, "captions": {"name": [str(n)]}} for n in range(3)]


def test_training_records_have_the_weights_of_the_file_and_others_one(tmp_path):
  np.save(tmp_path / "weights.npy", np.array([0.5, 0.0, 2.0]))
  source = Weighted(of=Three(), path=str(tmp_path / "weights.npy"))
  assert [record["weight"] for record in source.open("train", Reading())] == [0.5, 0.0, 2.0]
  assert [record["weight"] for record in source.open("validation", Reading())] == [1.0] * 3
  assert (
    list(source.columns) == ["image", "text", "weight"] and source.open("train", Reading()).features[-1] == "weight"
  )


@pytest.mark.parametrize(
  ("weights", "said"),
  [
    (np.ones(2), "has (2,) weights, and the source has 3 training records"),
    (np.array([1.0, -1.0, 1.0]), "the weight of record 1 is -1.0"),
    (np.array([1.0, 1.0, np.nan]), "the weight of record 2 is nan"),
    (None, "Cannot read the weights"),
  ],
)
def test_weights_that_do_not_fit_are_refused(weights, said, tmp_path):
  path = tmp_path / "weights.npy"
  if weights is not None:
    np.save(path, weights)
  with pytest.raises(DataError, match=re.escape(said)):
    Weighted(of=Three(), path=str(path)).open("train", Reading())
  with pytest.raises(DataError, match="needs --data.source.path FILE"):
    Weighted(of=Three()).open("train", Reading())
