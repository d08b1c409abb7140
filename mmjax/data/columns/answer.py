"""Columns of answers to questions, and of the weights of questions."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from mmjax.data.columns.base import Column, Evaluating, Example, Maker, Making, Shapes
from mmjax.data.columns.text import TextColumn, TextMaker, check_filled
from mmjax.data.errors import DataError
from mmjax.data.text.answer_text import normalize_answer

_ENOUGH = 4
"""Number of annotators from which three equal answers are needed for the full score, as in the VQA accuracy."""


@dataclasses.dataclass(frozen=True)
class Answer(TextColumn):
  """Field `answer` of a record: its class, int32 [] (-1: unknown), and as NAME_text its token ids, int32 [length].

  For training on all annotated answers, set `drawn` or `scores`.
  """

  drawn: bool = False
  """Train on the answer of one annotator, drawn for every example. The expected loss is that of ALBEF and BLIP, which
  sum over all answers with the share of annotators as weights. In evaluation, the field `answer` is used."""
  scores: bool = False
  """Add NAME_scores, float32 [classes]: min(1, n / 3) for an answer that n annotators gave (fewer than 4 annotators: 1
  for every given answer). Answers are compared in the normal form of the VQA evaluation."""
  candidates: int = 0
  """Add NAME_candidates to training batches, int32 [candidates, length]: the answer, then answers that no annotator
  gave, drawn for every example. If there are too few, rows of padding follow."""

  def __post_init__(self) -> None:
    if self.candidates < 0 or self.candidates == 1:
      raise ValueError(f"candidates={self.candidates} must be 0 (none) or at least 2 (the answer and another one)")

  @property
  def fields(self) -> tuple[str, ...]:
    return ("answer", "answers")

  def arrays(self, name: str, making: Making) -> Shapes:
    length, tokenizer = making.data.tokenizer.answer_length, making.tokenizer
    classes = making.data.num_answers if tokenizer is None else len(tokenizer.answers)
    shapes: Shapes = {name: ((), np.int32), f"{name}_text": ((length,), np.int32)}
    shapes |= {f"{name}_scores": ((classes,), np.float32)} if self.scores else {}
    return shapes | ({f"{name}_candidates": ((self.candidates, length), np.int32)} if self.candidates else {})

  def check(self, record: Mapping[str, Any]) -> None:
    check_filled(record, "answer")
    check_filled(record, "answers")

  def maker(self, name: str, making: Making) -> Maker:
    tokenizer: Any = making.tokenizer
    classes = _Classes(tokenizer.answers)

    def draw(example: Example) -> tuple[str, Sequence[str], list[str]]:
      record, rng = example.record, example.rng
      everybody = record["answers"]
      answer = classes.named(everybody[rng.integers(len(everybody))]) if self.drawn else record["answer"]
      others = classes.others([record["answer"], *everybody], self.candidates - 1, rng) if self.candidates else []
      return answer, everybody, others

    def arrays(rows: Sequence[tuple[str, Sequence[str], list[str]]]) -> dict[str, np.ndarray]:
      answers, everybody, others = zip(*rows, strict=True)
      made = self._rows(name, answers, everybody, tokenizer, classes)
      if self.candidates:
        made[f"{name}_candidates"] = _candidates(answers, others, self.candidates, tokenizer)
      return made

    return TextMaker(draw, arrays)

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    tokenizer: Any = evaluating.tokenizer
    answers, everybody = [record["answer"] for record in records], [record["answers"] for record in records]
    rows = self._rows(name, answers, everybody, tokenizer, _Classes(tokenizer.answers))
    return {array: values[places] for array, values in rows.items()}

  def texts(self, record: Mapping[str, Any]) -> Sequence[str]:
    return [record["answer"], *(record["answers"] if self.drawn else ())]

  def _rows(
    self, name: str, answers: Sequence[str], everybody: Sequence[Sequence[str]], tokenizer: Any, classes: "_Classes"
  ) -> dict[str, np.ndarray]:
    rows = {name: tokenizer.answer_ids(answers), f"{name}_text": tokenizer.answer_text(answers)}
    scores = {f"{name}_scores": np.stack([classes.scores(given) for given in everybody])} if self.scores else {}
    return rows | scores


@dataclasses.dataclass(frozen=True)
class Weight(Column):
  """Weight of a question in the loss, float32 []. Terms read it if their setting `weights` names the column."""

  field: str = ""
  """Field of the record with the weight, a number of at least 0. Empty: the share of annotators who gave `answer`."""

  @property
  def fields(self) -> tuple[str, ...]:
    return (self.field,) if self.field else ("answer", "answers")

  def arrays(self, name: str, making: Making) -> Shapes:
    return {name: ((), np.float32)}

  def row(self, record: Mapping[str, Any], rng: np.random.Generator | None, fitted: Any) -> np.ndarray:
    weight = record[self.field] if self.field else agreement(record["answer"], record["answers"])
    if isinstance(weight, bool) or not isinstance(weight, int | float | np.number) or not 0.0 <= weight < np.inf:
      raise DataError(
        f"{record['id']}: the field {self.field!r} is {weight!r}, not a number of at least 0. Correct it, or use "
        "--data.on-bad-record skip."
      )
    return np.asarray(weight, np.float32)


def agreement(answer: str, answers: Sequence[str]) -> float:
  """Share of `answers` that equal `answer` in the normal form of the VQA evaluation."""
  return [_normal(given) for given in answers].count(_normal(answer)) / len(answers)


class _Classes:
  """Classes of answers by their normal form. Several classes may have the same one ("2" and "two").

  Args:
    answers: answers in the order of their classes.
  """

  def __init__(self, answers: Sequence[str]):
    self._answers, self._of = answers, dict[str, list[int]]()
    for number, answer in enumerate(answers):
      self._of.setdefault(_normal(answer), []).append(number)

  def named(self, answer: str) -> str:
    """The first class with the normal form of an answer. The answer itself if there is none."""
    return self._answers[self._of[_normal(answer)][0]] if _normal(answer) in self._of else answer

  def scores(self, given: Sequence[str]) -> Float32[np.ndarray, "classes"]:
    """Soft score of every class, from the answers of all annotators."""
    scores, needed = np.zeros(len(self._answers), np.float32), 3 if len(given) >= _ENOUGH else 1
    for answer, count in Counter(map(_normal, given)).items():
      scores[self._of.get(answer, [])] = min(1.0, count / needed)
    return scores

  def others(self, given: Sequence[str], number: int, rng: np.random.Generator) -> list[str]:
    """Draw different answers that are not among the given ones: `number`, or all if there are fewer."""
    said = [place for answer in set(map(_normal, given)) for place in self._of.get(answer, ())]
    rest = np.delete(np.arange(len(self._answers)), said)
    return [self._answers[place] for place in rng.choice(rest, min(number, len(rest)), replace=False)]


@functools.lru_cache(maxsize=2**16)
def _normal(answer: str) -> str:
  return normalize_answer(answer)


def _candidates(
  answers: Sequence[str], others: Sequence[list[str]], number: int, tokenizer: Any
) -> Int32[np.ndarray, "n k t"]:
  """Token ids of each answer and of the other candidates, with rows of padding up to `number`."""
  rows = np.full((len(answers), number, tokenizer.config.answer_length), tokenizer.pad_id, np.int32)
  for row, answer, rest in zip(rows, answers, others, strict=True):
    row[: 1 + len(rest)] = tokenizer.answer_text([answer, *rest])
  return rows
