"""Answers to questions about images, chosen among classes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.data.errors import DataError
from mmjax.evaluate.answers import answer_ranks, ranking, ranking_names
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import batches, shown_examples
from mmjax.evaluate.forward import over_batches
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

  Chance is the accuracy of each question's commonest training answer. Data without texts has classes without names:
  the accuracy is the share of right classes, and chance the share of the commonest one.
  """

  def applies(self, experiment: Experiment) -> bool:
    return "answer" in entries(experiment.data) and bool(terms(experiment, Answers))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    names = ["vqa_accuracy", *ranking_names(num_answers(experiment))]
    return [f"{experiment.data.source.title}/{name}" for name in names]

  def check(self, run: Run, shared: Shared) -> None:
    examples, batches = checked_examples(run, shared)
    if all((batch["answer"][batch["valid"]] < 0).all() for batch in batches):
      raise DataError(
        f"no answer of {examples.title} is one of the {len(answer_names(run))} training answers. Raise "
        "--data.num-answers, or correct the split."
      )

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples = shown_examples(run, shared)
    names, ranks, truth, guesses = answer_names(run), [], [], []
    for batch, logits in over_batches(run, answer_logits, batches(run, examples), ("image", "text"), ("answer",)):
      ranks.append(answer_ranks(logits, batch["answer"]))
      truth.append(batch["answer"])
      guesses.append(logits.argmax(axis=1))
    known, guess = np.concatenate(truth), np.concatenate(guesses)
    order, chance = ranking(np.concatenate(ranks), len(names))
    if run.tokenizer is None:
      more: dict[str, Any] = {}
      right, guessed = float((guess == known).mean()), float(np.max(np.bincount(known[known >= 0])) / len(known))
    else:
      more = {"priors": priors(run, examples)}
      right, guessed = accuracy([names[g] for g in guess], examples), more["priors"]["question_prior"]
    found = {"vqa_accuracy": right} | order, {"vqa_accuracy": guessed} | chance
    report = class_report(known[known >= 0], guess[known >= 0], names)
    return [
      make_result(
        run, examples.name, "vqa", f"{examples.title}: answers", examples, found, table=ANSWERS,
        classes=len(names), report=report, **more,
      )
    ]  # fmt: skip

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    if run.tokenizer is None:
      return []  # there are no words to show

    from mmjax.report.showcase import questions

    return [questions(run, shown_examples(run, shared))]


def answer_names(run: Run) -> Sequence[str]:
  """Names of the classes: the tokenizer's answers; the numbers of the classes for data without texts."""
  if run.tokenizer is not None:
    return run.tokenizer.answers
  return [str(number) for number in range(num_answers(run.experiment))]
