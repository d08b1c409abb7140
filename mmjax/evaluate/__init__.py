"""Measuring what a run has learnt, and showing it."""

from mmjax.evaluate.config import EvaluationConfig
from mmjax.evaluate.report import write_report
from mmjax.evaluate.results import Result, flatten
from mmjax.evaluate.suite import evaluate, measure, write_results
from mmjax.evaluate.table import print_table

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
