"""Measuring what a run has learnt, and showing it."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.evaluate.config import EvaluationConfig
  from mmjax.evaluate.report import write_report
  from mmjax.evaluate.results import Result, flatten
  from mmjax.evaluate.suite import evaluate, measure, write_results
  from mmjax.evaluate.table import print_table
else:
  __getattr__, __dir__ = lazy_names(
    __name__,
    {
      "config": ["EvaluationConfig"],
      "report": ["write_report"],
      "results": ["Result", "flatten"],
      "suite": ["evaluate", "measure", "write_results"],
      "table": ["print_table"],
    },
  )

__all__ = [
  "EvaluationConfig",
  "Result",
  "evaluate",
  "flatten",
  "measure",
  "print_table",
  "write_report",
  "write_results",
]
