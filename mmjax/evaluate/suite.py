"""Everything that is measured of a run: chosen by what it was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from mmjax.evaluate import emoji, generic
from mmjax.evaluate.results import Result
from mmjax.files import write_atomically

if TYPE_CHECKING:  # mmjax.run needs EvaluationConfig from this package
  from mmjax.run import Run


def evaluate(run: Run) -> list[Result]:
  """Measures a run: the emoji suite, or picture-text retrieval on the validation split of other data.

  Raises:
    mmjax.data.DataError: the data cannot be read; the message names the record.
  """
  return emoji.run(run) if run.experiment.data.source == "emoji" else generic.run(run)


def measure(run: Run) -> list[Result]:
  """Evaluates (every process embeds its share) and writes results.json to the run's workdir."""
  results = evaluate(run)
  if jax.process_index() == 0:
    write_results(results, run.workdir / "results.json")
  return results


def write_results(results: Sequence[Result], path: str | Path) -> None:
  """A JSON list of results, written so that a crash leaves the old file or the new one."""
  write_atomically(Path(path), json.dumps(list(results), indent=2, ensure_ascii=False) + "\n")
