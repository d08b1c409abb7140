"""Measures a trained model: the base of evaluators, their results, and the metrics that they are made of."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.evaluate.calibration import Reliability, reliability
  from mmjax.evaluate.checked import check_ready, checked_examples
  from mmjax.evaluate.evaluator import Evaluator, Shared
  from mmjax.evaluate.examples import batches, validation_examples
  from mmjax.evaluate.forward import over_batches, over_rows
  from mmjax.evaluate.metrics import commonest_share
  from mmjax.evaluate.probe import Features, Probed, probes
  from mmjax.evaluate.results import Result, Table, flatten
  from mmjax.evaluate.suite import evaluate, measure, write_results
  from mmjax.evaluate.task import make_result
else:
  __getattr__, __dir__ = lazy_names(
    __name__,
    {
      "calibration": ["Reliability", "reliability"],
      "checked": ["check_ready", "checked_examples"],
      "evaluator": ["Evaluator", "Shared"],
      "examples": ["batches", "validation_examples"],
      "forward": ["over_batches", "over_rows"],
      "metrics": ["commonest_share"],
      "probe": ["Features", "Probed", "probes"],
      "results": ["Result", "Table", "flatten"],
      "suite": ["evaluate", "measure", "write_results"],
      "task": ["make_result"],
    },
  )

__all__ = [
  "Evaluator",
  "Features",
  "Probed",
  "Reliability",
  "Result",
  "Shared",
  "Table",
  "batches",
  "check_ready",
  "checked_examples",
  "commonest_share",
  "evaluate",
  "flatten",
  "make_result",
  "measure",
  "over_batches",
  "over_rows",
  "probes",
  "reliability",
  "validation_examples",
  "write_results",
]
