"""Answers to questions about images, chosen among classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmjax.evaluate.answers import answer_ranks, ranking, ranking_names
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import batches, shown_examples
from mmjax.evaluate.forward import over_batches, text_tokenizer
from mmjax.evaluate.matching import class_report
from mmjax.evaluate.questions import accuracy, answer_logits, num_answers, priors
from mmjax.evaluate.results import ANSWERS, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries, terms
from mmjax.models.protocols import Answers

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class AnswerAccuracy(Evaluator):
  """The likeliest class: VQA accuracy, the true answer's rank, and precision and recall per answer.

  Chance is the accuracy of each question's commonest training answer.
  """

  def applies(self, experiment: Experiment) -> bool:
    return "answer" in entries(experiment.data) and bool(terms(experiment, Answers))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    names = ["vqa_accuracy", *ranking_names(num_answers(experiment))]
    return [f"{experiment.data.source.title}/{name}" for name in names]

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples = shown_examples(run, shared)
    names, ranks, truth, guesses = text_tokenizer(run).answers, [], [], []
    for batch, logits in over_batches(run, answer_logits, batches(run, examples), ("image", "text"), ("answer",)):
      ranks.append(answer_ranks(logits, batch["answer"]))
      truth.append(batch["answer"])
      guesses.append(logits.argmax(axis=1))
    known, guess = np.concatenate(truth), np.concatenate(guesses)
    order, chance = ranking(np.concatenate(ranks), len(names))
    prior = priors(run, examples)
    metrics = {"vqa_accuracy": accuracy([names[g] for g in guess], examples)} | order
    found = metrics, {"vqa_accuracy": prior["question_prior"]} | chance
    report = class_report(known[known >= 0], guess[known >= 0], names)
    return [
      make_result(
        run, examples.name, "vqa", f"{examples.title}: answers", examples, found, table=ANSWERS,
        classes=len(names), priors=prior, report=report,
      )
    ]  # fmt: skip

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.showcase import questions

    return [questions(run, shown_examples(run, shared))]
