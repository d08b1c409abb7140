"""Metrics of predicted numbers, and what guessing would score."""

import numpy as np
from jaxtyping import Float

from mmjax.evaluate.results import Metrics

REGRESSION = ("r2", "mean_absolute_error", "root_mean_squared_error")


def regression(predicted: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"]) -> Metrics:
  """Scores of predicted numbers, in float64.

  r2: share of the variance that is explained; 0 for guessing the mean of `true`. If all true numbers are equal, it is 1
  for perfect predictions and otherwise 0, as in scikit-learn. The errors have the unit of the numbers.
  """
  predicted, true = predicted.astype(np.float64), true.astype(np.float64)
  errors, spread = predicted - true, np.square(true - true.mean()).sum()
  squares = np.square(errors).sum()
  r2 = 1 - squares / spread if spread else float(squares == 0)
  values = (r2, np.abs(errors).mean(), np.sqrt(np.square(errors).mean()))
  return dict(zip(REGRESSION, map(float, values), strict=True))
