"""Evaluates a run by the evaluators of its configuration that apply to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mmjax.evaluate.evaluator import Shared, applying, in_stream
from mmjax.evaluate.results import Result
from mmjax.files import write_atomically

if TYPE_CHECKING:
  from mmjax.run import Run


def evaluate(run: Run) -> list[Result]:
  """The results of every evaluator in evaluation.evaluators that applies to a run, on its validation data.

  Raises:
    mmjax.data.DataError: the data cannot be read; the message names the record.
  """
  results = []
  for stream, each in run.by_stream().items():
    shared = Shared()
    found = [result for evaluator in applying(each.experiment) for result in evaluator.run(each, shared)]
    results += [_of_stream(result, stream) for result in found]
  return results


def _of_stream(result: Result, stream: str) -> Result:
  """The result with the name of its stream before its data set."""
  if not stream:
    return result
  named = {"dataset": in_stream(stream, result["dataset"]), "title": f"{result['title']}, stream {stream}"}
  return cast(Result, {**result, **named})


def measure(run: Run) -> list[Result]:
  """Evaluates (every process embeds its share) and writes results.json to the run's workdir."""
  import jax
  from jax.experimental import multihost_utils

  results = evaluate(run)
  if jax.process_index() == 0:
    write_results(results, run.workdir / "results.json")
  multihost_utils.sync_global_devices("results.json")  # whoever reads it next finds it; nothing for one process
  return results


def write_results(results: Sequence[Result], path: str | Path) -> None:
  """A JSON list of results, written so that a crash leaves the old file or the new one."""
  write_atomically(Path(path), json.dumps(list(results), indent=2, ensure_ascii=False) + "\n")
