"""Texts that a model recognizes in sounds by CTC."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from mmjax.data.places import spread
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.ctc_decoding import likeliest_path, prefix_beam
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples, batches, example_columns, shown_examples, shown_name
from mmjax.evaluate.forward import over_batches, text_tokenizer
from mmjax.evaluate.matching import other_texts
from mmjax.evaluate.results import TEXTS, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import terms
from mmjax.evaluators.written_texts import folded, target_texts, transcript_scores
from mmjax.models.protocols import Recognizes

if TYPE_CHECKING:
  from mmjax.data.text.tokenizer import Tokenizer
  from mmjax.experiment import Experiment
  from mmjax.objectives.terms.ctc import Ctc
  from mmjax.report.page import Section
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class RecognizedTexts(Evaluator):
  """Texts recognized by CTC: word error rate, character error rate, and the share that is equal word for word.

  Words are what spaces separate. Case does not matter where the tokenizer folds it. Chance is the score of the same
  texts, each compared with the text of another record.
  """

  beams: int = 1
  """Number of prefixes of the beam search. 1: the likeliest path."""
  length_bonus: float = 0.0
  """With beams, this is added to the log-probability for each symbol, in nats."""
  examples: int = 12
  """Number of examples in the report."""

  def __post_init__(self) -> None:
    if self.beams < 1:
      raise ValueError(f"RecognizedTexts.beams is {self.beams}: it must be at least 1")
    if self.length_bonus and self.beams == 1:
      raise ValueError(f"RecognizedTexts.length_bonus is {self.length_bonus}: it needs beams of 2 or more")

  def applies(self, experiment: Experiment) -> bool:
    return bool(terms(experiment, Recognizes))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [f"{shown_name(experiment.data)}_recognized/{name}" for name in ("wer", "cer", "exact")]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples, heard, targets = self._heard(run, shared)
    other = other_texts(np.array([record["concept"] for record in examples.records]))
    swapped = [targets[place if place >= 0 else own] for own, place in enumerate(other.tolist())]
    found = [
      {name: scores[name] for name in ("wer", "cer", "exact")}
      for scores in (transcript_scores(heard, targets), transcript_scores(heard, swapped))
    ]
    title = f"{examples.title}: texts recognized"
    return [
      make_result(
        run, f"{examples.name}_recognized", "transcription", title, examples, (found[0], found[1]), table=TEXTS
      )
    ]

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.page import Section

    examples, heard, targets = self._heard(run, shared)
    column = example_columns(run.experiment.data, examples.features)[_term(run.experiment).source]
    cards = [
      f'<figure style="width: 220px">{column.show(examples[place])}<figcaption>{_marked(heard[place], targets[place])}'
      f"<br>{escape(examples[place]['id'])}</figcaption></figure>"
      for place in spread(len(examples), self.examples)
    ]
    return [Section("recognized", "Recognized texts", f'<div class="tiles">{"".join(cards)}</div>')]

  def _heard(self, run: Run, shared: Shared) -> tuple[Examples, list[str], list[str]]:
    """(examples, the text recognized in each, the right one)."""

    def compute() -> tuple[Examples, list[str], list[str]]:
      examples, term = shown_examples(run, shared), _term(run.experiment)
      rows = over_batches(run, SymbolLogProbs(term.source), batches(run, examples), (term.source,))
      texts = [text for _, found in rows for text in recognized(text_tokenizer(run), found, self)]
      return examples, texts, target_texts(run, examples, term.text)

    return shared.once(("recognized", self), compute)


def _term(experiment: Experiment) -> Ctc:
  return terms(experiment, Recognizes)[0]  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class SymbolLogProbs:
  """(model, batch with the source) -> log-probabilities of the symbols; the blank's is 0 after the end of a clip."""

  source: str = "audio"

  def __call__(self, model: Any, batch: Mapping[str, Array]) -> Float[Array, "batch frames symbols"]:
    encoded, vocabulary = model.encode(batch)[self.source], model.config.text
    others = [each for each in vocabulary.special_ids if each != vocabulary.pad_id]
    logits = model.symbol_logits(encoded).at[:, :, jnp.asarray(others, jnp.int32)].set(-jnp.inf)
    blank = jnp.where(jnp.arange(logits.shape[-1]) == vocabulary.pad_id, 0.0, -jnp.inf)[None, None]
    return jnp.where(encoded.mask[:, :, None], jax.nn.log_softmax(logits), blank)


def recognized(
  tokenizer: Tokenizer, log_probs: Float[np.ndarray, "batch frames symbols"], how: RecognizedTexts
) -> Iterator[str]:
  """The text of each row of log-probabilities, as `folded` spells it."""
  for row in log_probs:
    if how.beams == 1:
      ids = likeliest_path(row, blank_id=tokenizer.pad_id)
    else:
      ids = prefix_beam(row, blank_id=tokenizer.pad_id, beams=how.beams, length_bonus=how.length_bonus)
    yield folded(tokenizer.decode(ids), tokenizer.config.lowercase)


def _marked(heard: str, target: str) -> str:
  if heard == target:
    return f'<b class="good">right</b> {escape(target)}'
  return f'<b class="bad">wrong</b> {escape(heard) or "(nothing)"}<br>right: {escape(target)}'
