"""Attention maps: where words look in an image. They are shown, not measured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import shown_examples
from mmjax.evaluate.explained import answer_score, match_score, words_score
from mmjax.evaluate.traits import entries, terms
from mmjax.models.protocols import Answers, Fuses, GuessesWords, Matches

if TYPE_CHECKING:
  from mmjax.evaluate.attention_maps import Score
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run

_SCORES = (
  (Answers, answer_score, "the answer that the model gives"),
  (Matches, match_score, "that picture and text belong together"),
  (GuessesWords, words_score, "the text's own words"),
)


@dataclasses.dataclass(frozen=True)
class WordAttention(Evaluator):
  """Attention of the words of some examples to image patches, and its relevance for the score."""

  attention_layer: int | None = None
  """The layer, counted from 0 among those in which words read patches; negative from the end; None: all together."""

  def applies(self, experiment: Experiment) -> bool:
    return {"image", "text"} <= set(entries(experiment.data)) and self._score(experiment) is not None

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.showcase import attention

    found = self._score(run.experiment)
    drawn = None if found is None else attention(run, shown_examples(run, shared), *found, self.attention_layer)
    return [] if drawn is None else [drawn]

  def _score(self, experiment: Experiment) -> tuple[Score, str] | None:
    """The number that is explained, and its meaning: that of the first of _SCORES that a term is about."""
    found = ((score, meaning) for asked, score, meaning in _SCORES if terms(experiment, Fuses, asked))
    return next(found, None)
