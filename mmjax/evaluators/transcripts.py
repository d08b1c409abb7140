"""Transcripts of sounds by a trained model, of CTC or with a decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.data.columns.sound import Sound
from mmjax.data.features import run_columns
from mmjax.errors import UserError
from mmjax.evaluate.forward import over_rows, text_tokenizer
from mmjax.evaluate.questions import until_end
from mmjax.evaluate.traits import terms
from mmjax.evaluators.recognized import RecognizedTexts, SymbolLogProbs, recognized
from mmjax.evaluators.written_texts import WrittenTexts, folded
from mmjax.models.protocols import Encodes, Recognizes, Writes

if TYPE_CHECKING:
  from mmjax.run import Run


def transcripts(run: Run, sounds: Sequence[Any]) -> list[str]:
  """Write down what is said in sounds, decoded as the run's evaluator RecognizedTexts or WrittenTexts does.

  Args:
    run: a run with the objective Ctc, or TargetText from sounds.
    sounds: items of its column of sounds: paths, encoded bytes, or (samples, rate).
  Returns: one text for each sound, folded as its tokenizer folds texts.
  Raises:
    UserError: the run has no such objective.
    DataError: a sound cannot be read, or is longer than a row of its column.
  """
  for each in run.by_stream().values():
    for term in terms(each.experiment, Encodes, Recognizes):
      source, how = str(getattr(term, "source", "audio")), _evaluator(each, RecognizedTexts)
      parts = over_rows(each, SymbolLogProbs(source), len(sounds), _take(each, source, sounds))
      return [text for rows in parts for text in recognized(text_tokenizer(each), rows, how)]
    for term in terms(each.experiment, Encodes, Writes):
      source = str(getattr(term, "source", ""))
      if source not in ("", "text"):
        return _written(each, source, sounds)
  raise UserError(
    f"the run in {run.workdir} has no objective that writes down sounds: train one with --objectives ctc, or "
    "target_text with --objectives.0.source audio"
  )


def _written(run: Run, source: str, sounds: Sequence[Any]) -> list[str]:
  tokenizer = text_tokenizer(run)
  parts = over_rows(
    run, _evaluator(run, WrittenTexts).writer(tokenizer, source), len(sounds), _take(run, source, sounds)
  )
  rows = [ids for part in parts for ids in until_end(np.asarray(part), tokenizer.eos_id)]
  return [folded(tokenizer.decode(ids), tokenizer.config.lowercase) for ids in rows]


def _take(run: Run, source: str, sounds: Sequence[Any]) -> Any:
  """Function from places to rows of sounds. Sounds that do not fit into a row are refused when they are read."""
  data = run.experiment.data
  columns = dict(run_columns(data))
  if isinstance(column := columns[source], Sound):
    columns[source] = dataclasses.replace(column, longer="refuse", max_seconds=column.seconds)
  whole = dataclasses.replace(run.experiment, data=dataclasses.replace(data, columns=columns))
  rows = dataclasses.replace(run, experiment=whole).rows(source, sounds)
  return lambda places: {source: rows[places]}


def _evaluator(run: Run, kind: Any) -> Any:
  """The evaluator of a class in the configuration of a run, or one with its defaults."""
  return next((each for each in run.experiment.evaluation.evaluators.values() if isinstance(each, kind)), kind())
