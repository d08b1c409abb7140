"""Metrics of predicted numbers are scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from mmjax.evaluate.regression import regression

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e6])
def test_scores_equal_scikit_learn(scale):
  true = (RNG.normal(5, 2, 300) * scale).astype(np.float32)
  predicted = (true + RNG.normal(0, scale, 300)).astype(np.float32)
  found, double = regression(predicted, true), (true.astype(np.float64), predicted.astype(np.float64))
  assert found["r2"] == pytest.approx(r2_score(*double), abs=1e-9)
  assert found["mean_absolute_error"] == pytest.approx(mean_absolute_error(*double), rel=1e-9)
  assert found["root_mean_squared_error"] == pytest.approx(root_mean_squared_error(*double), rel=1e-9)


def test_equal_true_numbers_have_the_r2_of_scikit_learn():
  same = np.full(3, 2.0)
  assert regression(same, same)["r2"] == r2_score(same, same) == 1
  assert regression(same + 1, same)["r2"] == r2_score(same, same + 1) == 0
