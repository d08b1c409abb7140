"""Ensembles of runs: averages of weights, combined answers, bagging, boosting and stacking. Each result is a run."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.ensembles.averaging import Soup, average, greedy_soup, interpolate
  from mmjax.ensembles.boosting import Boosted, boost, samme
  from mmjax.ensembles.combining import calibrated, combine, members, snapshots
  from mmjax.ensembles.saving import save_run
  from mmjax.ensembles.scoring import Predictions, out_of_sample, predictions
  from mmjax.ensembles.stacking import stack
  from mmjax.ensembles.trees import tree_accuracy
else:
  __getattr__, __dir__ = lazy_names(
    __name__,
    {
      "averaging": ["Soup", "average", "greedy_soup", "interpolate"],
      "boosting": ["Boosted", "boost", "samme"],
      "combining": ["calibrated", "combine", "members", "snapshots"],
      "scoring": ["Predictions", "out_of_sample", "predictions"],
      "saving": ["save_run"],
      "stacking": ["stack"],
      "trees": ["tree_accuracy"],
    },
  )

__all__ = [
  "Boosted",
  "Predictions",
  "Soup",
  "average",
  "boost",
  "calibrated",
  "combine",
  "greedy_soup",
  "interpolate",
  "members",
  "out_of_sample",
  "predictions",
  "samme",
  "save_run",
  "snapshots",
  "stack",
  "tree_accuracy",
]
