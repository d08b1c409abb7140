"""Attention maps: where words look in an image. They are shown, not measured."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax

from mmjax.errors import UserError
from mmjax.evaluate.attention_maps import num_layers
from mmjax.evaluate.checked import checked_examples
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
  (Matches, match_score, "that image and text belong together"),
  (GuessesWords, words_score, "the text's own words"),
)


@dataclasses.dataclass(frozen=True)
class WordAttention(Evaluator):
  """Attention of the words of some examples to image patches, and its relevance for the score."""

  attention_layer: int | None = None
  """The layer, counted from 0 among those in which words read patches; negative from the end; None: all together."""

  def applies(self, experiment: Experiment) -> bool:
    return {"image", "text"} <= set(entries(experiment.data)) and word_score(experiment) is not None

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)
    found, layer = word_score(run.experiment), self.attention_layer
    if found is None or layer is None:
      return
    model: Any = run.experiment.model
    example, patches = model.example(1), model.image.grid**2
    shapes: Any = {name: jax.ShapeDtypeStruct(example[name].shape, example[name].dtype) for name in ("image", "text")}
    number = num_layers(run.model, run.params, shapes, found[0], patches=patches)
    if number and not -number <= layer < number:
      raise UserError(f"attention_layer={layer}: words read patches in {number} layers, 0 to {number - 1}")

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.showcase import attention

    found = word_score(run.experiment)
    drawn = None if found is None else attention(run, shown_examples(run, shared), *found, self.attention_layer)
    return [] if drawn is None else [drawn]


def word_score(experiment: Experiment) -> tuple[Score, str] | None:
  """The number that is explained, and its meaning: that of the first of _SCORES that a term is about."""
  found = ((score, meaning) for asked, score, meaning in _SCORES if terms(experiment, Fuses, asked))
  return next(found, None)
