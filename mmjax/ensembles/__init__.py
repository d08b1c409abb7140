"""Ensembles of runs: averages of weights, combined answers, bagging, boosting and stacking. Each result is a run."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.ensembles.averaging import Soup, average, greedy_soup, interpolate
  from mmjax.ensembles.combining import calibrated, combine, snapshots
  from mmjax.ensembles.saving import save_run
else:
  __getattr__, __dir__ = lazy_names(
    __name__,
    {
      "averaging": ["Soup", "average", "greedy_soup", "interpolate"],
      "combining": ["calibrated", "combine", "snapshots"],
      "saving": ["save_run"],
    },
  )

__all__ = [
  "Soup",
  "average",
  "calibrated",
  "combine",
  "greedy_soup",
  "interpolate",
  "save_run",
  "snapshots",
]
