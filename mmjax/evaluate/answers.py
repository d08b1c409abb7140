"""Scores of answers to questions about images, and what answering without a look would score."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.text.answer_text import normalize_answer, tidy
from mmjax.evaluate.metrics import TIE, ranks

# With fewer people's answers than this, nobody could reach "three others gave it", and one equal answer is enough.
_ENOUGH = 4


def vqa_score(predicted: str, answers: Sequence[str]) -> float:
  """Accuracy of one answer: min(1, n / 3) for n people who gave it, averaged over leaving each person out.

  Source: Antol et al. 2015, section 3, and the official evaluation: with ten answers the mean over the ten subsets of
  nine. Answers are normalised unless all people wrote the very same (as there). With fewer than four answers: 1 where
  anybody's equals.
  """
  people = [tidy(answer) for answer in answers]
  predicted = tidy(predicted)
  if len(set(people)) != 1:
    people, predicted = [normalize_answer(answer) for answer in people], normalize_answer(predicted)
  agree, total = people.count(predicted), len(people)
  if total < _ENOUGH:
    return float(agree > 0)
  without_one_who_agrees = agree * min(1.0, (agree - 1) / 3)
  without_another = (total - agree) * min(1.0, agree / 3)
  return (without_one_who_agrees + without_another) / total


def vqa_accuracy(predicted: Sequence[str], answers: Sequence[Sequence[str]]) -> float:
  """The mean of `vqa_score`."""
  return float(np.mean([vqa_score(p, a) for p, a in zip(predicted, answers, strict=True)]))


def prior_accuracy(
  questions: Sequence[str],
  answers: Sequence[Sequence[str]],
  seen: tuple[Sequence[str], Sequence[Sequence[str]]] | None = None,
) -> dict[str, float]:
  """Accuracies without the image: `prior` (one answer to all) and `question_prior` (one answer per question).

  Args:
    questions, answers: what is asked, and people's answers to each.
    seen: (questions, answers) that the guesses are learnt from; those that are scored where it is None, which is the
      best such a guess could do. A question that was not seen gets the commonest answer of all.
  """
  learnt = (questions, answers) if seen is None else seen
  overall: Counter[str] = Counter()
  by_question: dict[str, Counter[str]] = {}
  for question, people in zip(*learnt, strict=True):
    given = [normalize_answer(answer) for answer in people]
    overall.update(given)
    by_question.setdefault(question, Counter()).update(given)
  commonest = _commonest(overall)
  guesses = [_commonest(by_question[q]) if q in by_question else commonest for q in questions]
  return {
    "prior": vqa_accuracy([commonest] * len(questions), answers),
    "question_prior": vqa_accuracy(guesses, answers),
  }


def answer_ranks(logits: Float[np.ndarray, "n answers"], truth: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
  """The rank, from 1, of the true answer among all candidates; ties and NaN count against it."""
  return ranks(logits, truth[:, None] == np.arange(logits.shape[1])[None], tie=TIE)


def ranking_names(candidates: int) -> list[str]:
  """The names of the metrics of `ranking`."""
  return ["answer_mrr"] + (["answer_recall@5"] if candidates > 5 else [])


def ranking(rank: Int[np.ndarray, " n"], candidates: int) -> tuple[dict[str, float], dict[str, float]]:
  """(metrics, chance) of ranking candidate answers: their mean reciprocal rank, and the share in the first five."""
  places = 1 + np.arange(candidates)
  metrics = {"answer_mrr": float(np.mean(1 / rank))}
  chance = {"answer_mrr": float(np.mean(1 / places))}
  if candidates > 5:
    metrics["answer_recall@5"], chance["answer_recall@5"] = float(np.mean(rank <= 5)), 5 / candidates
  return metrics, chance


def _commonest(counts: Counter[str]) -> str:
  """The first in the alphabet of equals, so that the order of records does not matter."""
  return min(counts, key=lambda answer: (-counts[answer], answer)) if counts else ""
