"""Answers to questions about images, written word by word."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmjax.evaluate.answers import answer_ranks, ranking, ranking_names
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import batches, shown_examples
from mmjax.evaluate.forward import over_batches, text_tokenizer
from mmjax.evaluate.questions import MOST_CANDIDATES, WriteAnswers, accuracy, num_answers, priors, until_end
from mmjax.evaluate.results import ANSWERS, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries, terms
from mmjax.models.protocols import Answers, Writes

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class WrittenAnswers(Evaluator):
  """The answer that the decoder writes, and the true answer's rank among all answers (if those are few)."""

  def applies(self, experiment: Experiment) -> bool:
    written = any({"answer_text", "answer_candidates"} & {*term.needs} for term in terms(experiment, Writes))
    return "answer_text" in entries(experiment.data) and written

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    candidates = num_answers(experiment)
    names = ["vqa_accuracy", *(ranking_names(candidates) if 0 < candidates <= MOST_CANDIDATES else [])]
    return [f"{experiment.data.source.title}_written/{name}" for name in names]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples, names = shown_examples(run, shared), text_tokenizer(run).answers
    write = WriteAnswers.of(run)
    ranks, said = [], []
    for batch, (ids, scores) in over_batches(run, write, batches(run, examples), ("image", "text"), ("answer",)):
      said += [text_tokenizer(run).decode(row) for row in until_end(ids, text_tokenizer(run).eos_id)]
      ranks.append(answer_ranks(scores, batch["answer"]))
    metrics, chance = ranking(np.concatenate(ranks), len(names)) if write.candidates else ({}, {})
    prior = priors(run, examples)
    found = {"vqa_accuracy": accuracy(said, examples)} | metrics, {"vqa_accuracy": prior["question_prior"]} | chance
    return [
      make_result(
        run, f"{examples.name}_written", "vqa_written", f"{examples.title}: written answers", examples, found,
        table=ANSWERS, classes=len(names), priors=prior,
      )
    ]  # fmt: skip

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    if terms(run.experiment, Answers):
      return []  # the classifier's answers are shown
    from mmjax.report.showcase import questions

    return [questions(run, shown_examples(run, shared))]
