"""Everything that is measured of a run: chosen by what it was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
from jax.experimental import multihost_utils

from mmjax.data.features import IMAGE_TEXT, config_features
from mmjax.data.sources.emoji import Emoji
from mmjax.evaluate import emoji, generic, hidden_words, noise, pairs, questions, written
from mmjax.evaluate.examples import validation_examples
from mmjax.evaluate.results import Result
from mmjax.files import write_atomically

if TYPE_CHECKING:  # mmjax.run needs EvaluationConfig from this package
  from mmjax.run import Run


def evaluate(run: Run) -> list[Result]:
  """Measures what a run was trained for, on the validation split of its data.

  Embeddings: the emoji suite, or picture-text retrieval. Matching: telling right from wrong pairs, also from those that
  data.corrupt_captions made, and retrieval re-ranked. Captions, answers, relevant pixels, hidden words, next
  sentences: each where an objective asks for it.

  Raises:
    mmjax.data.DataError: the data cannot be read; the message names the record.
  """
  is_emoji = isinstance(run.experiment.data.source, Emoji)
  trained = {objective.name for objective in run.experiment.objectives}
  results: list[Result] = []
  if compares(run):
    results += emoji.run(run) if is_emoji else generic.run(run)
  if not trained & FUSED:
    return results
  examples = emoji.examples(run) if is_emoji else validation_examples(run)
  if "answer" in examples.features:
    return results + questions.run(run, examples)
  if "matching" in trained:
    results += pairs.run(run, examples)
    noisy = run.experiment.data.corrupt_captions and run.experiment.data.captions_from is None
    results += noise.run(run) if noisy else []
  results += written.run(run, examples) if "caption" in trained else []
  return results + hidden_words.run(run, examples)


def compares(run: Run) -> bool:
  """Whether the run was trained to embed pictures and texts in one space, and its data has captions."""
  trained = any(objective.compares for objective in run.experiment.objectives)
  return trained and config_features(run.experiment.data) == IMAGE_TEXT


FUSED = {
  "matching", "caption", "answer", "answer_text", "relevance", "masked_words", "masked_both", "masked_words_text",
  "next_sentence",
}  # fmt: skip
"""Objectives of models that are more than two towers, by name."""


def measure(run: Run) -> list[Result]:
  """Evaluates (every process embeds its share) and writes results.json to the run's workdir."""
  results = evaluate(run)
  if jax.process_index() == 0:
    write_results(results, run.workdir / "results.json")
  multihost_utils.sync_global_devices("results.json")  # whoever reads it next finds it; nothing for one process
  return results


def write_results(results: Sequence[Result], path: str | Path) -> None:
  """A JSON list of results, written so that a crash leaves the old file or the new one."""
  write_atomically(Path(path), json.dumps(list(results), indent=2, ensure_ascii=False) + "\n")
