"""Columns of texts as token ids: captions, any text, questions and pairs of sentences."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.captions import text_fault
from mmjax.data.columns.base import Column, Evaluating, Example, Maker, Making, Shapes
from mmjax.data.errors import DataError
from mmjax.kinds import undefined


class TextColumn(Column):
  """Base class of text columns. The tokenizer of the run makes token ids of them."""

  @property
  def tokenizes(self) -> bool:
    return True

  def arrays(self, name: str, making: Making) -> Shapes:
    return {name: ((making.data.tokenizer.max_length,), np.int32)}

  def texts(self, record: Mapping[str, Any]) -> Sequence[str]:
    """Return the texts of a record from which the vocabulary is learned."""
    raise undefined(self, "texts")


@dataclasses.dataclass(frozen=True)
class Caption(TextColumn):
  """One of the `captions` of a record, int32 [length]: sampled by the weights in data; in evaluation, the main one."""

  words: bool = False
  """Add NAME_words, int32 [length]: number of the word that each token is part of. -1: none (special tokens)."""

  @property
  def fields(self) -> tuple[str, ...]:
    return ("captions",)

  def arrays(self, name: str, making: Making) -> Shapes:
    ids = super().arrays(name, making)
    return ids | ({f"{name}_words": ids[name]} if self.words else {})

  def check(self, record: Mapping[str, Any]) -> None:
    from mmjax.data.transforms import check_captions

    check_captions(record["captions"], record["id"])

  def maker(self, name: str, making: Making) -> Maker:
    from mmjax.data.transforms import caption_transform

    sample = caption_transform(making.data)
    ids = lambda texts: {name: making.memory.ids(texts, making.tokenizer), **self._words(name, texts, making.tokenizer)}
    return TextMaker(lambda example: sample(example.record["captions"], example.rng), ids)

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    assert evaluating.tokenizer is not None
    texts = [evaluating.caption(record) for record in records]
    rows = {name: evaluating.tokenizer(texts), **self._words(name, texts, evaluating.tokenizer)}
    return {array: values[places] for array, values in rows.items()}

  def texts(self, record: Mapping[str, Any]) -> Sequence[str]:
    return [text for texts in record["captions"].values() for text in texts]

  def _words(self, name: str, texts: Sequence[str], tokenizer: Any) -> dict[str, np.ndarray]:
    return {f"{name}_words": tokenizer.word_numbers(texts)} if self.words else {}

  def record(self, item: Any) -> Mapping[str, Any]:
    return {"captions": {"name": [item]}, "id": "the text"}


@dataclasses.dataclass(frozen=True)
class Text(TextColumn):
  """Text in any field of a record, int32 [length]."""

  field: str = "text"
  """Field of the record."""

  def check(self, record: Mapping[str, Any]) -> None:
    if not isinstance(record[self.field], str):
      raise DataError(
        f"{record['id']}: a column Text reads the field {self.field!r}, which is no text here. Name another field, "
        "remove the record, or use --data.on-bad-record skip."
      )
    check_filled(record, self.field)

  def maker(self, name: str, making: Making) -> Maker:
    ids = lambda texts: {name: making.memory.ids(texts, making.tokenizer)}
    return TextMaker(lambda example: example.record[self.field], ids)

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    assert evaluating.tokenizer is not None
    return {name: evaluating.tokenizer([record[self.field] for record in records])[places]}

  def texts(self, record: Mapping[str, Any]) -> Sequence[str]:
    text = record.get(self.field)
    return [text] if isinstance(text, str) else []  # `check` refuses the record

  def record(self, item: Any) -> Mapping[str, Any]:
    return {self.field: item, "id": "the text"}


@dataclasses.dataclass(frozen=True)
class Question(TextColumn):
  """Field `question` of a record, int32 [length]."""

  @property
  def fields(self) -> tuple[str, ...]:
    return ("question",)

  def check(self, record: Mapping[str, Any]) -> None:
    check_filled(record, "question")

  def maker(self, name: str, making: Making) -> Maker:
    ids = lambda texts: {name: making.memory.ids(texts, making.tokenizer)}
    return TextMaker(lambda example: example.record["question"], ids)

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    assert evaluating.tokenizer is not None
    return {name: evaluating.tokenizer([record["question"] for record in records])[places]}

  def texts(self, record: Mapping[str, Any]) -> Sequence[str]:
    return [record["question"]]

  def record(self, item: Any) -> Mapping[str, Any]:
    return {"question": item, "id": "the question"}


@dataclasses.dataclass(frozen=True)
class SentencePair(TextColumn):
  """Pair of texts in one row, int32 [length], with the arrays `segment` (int32 [length]) and `next` (int32 []).

  The field `first` is followed by `second` in half of the rows (next = 1), and by one of `others` in the rest.
  """

  @property
  def fields(self) -> tuple[str, ...]:
    return ("first", "second", "others")

  def arrays(self, name: str, making: Making) -> Shapes:
    words = ((making.data.tokenizer.max_length,), np.int32)
    return {name: words, "segment": words, "next": ((), np.int32)}

  def check(self, record: Mapping[str, Any]) -> None:
    for field in self.fields:
      check_filled(record, field)

  def maker(self, name: str, making: Making) -> Maker:
    if making.data.tokenizer.sep_token is None:
      raise DataError("Pairs of texts need a token between them: set --data.tokenizer.sep-token '<sep>'.")

    def draw(example: Example) -> tuple[str, str, bool]:
      is_next, point = example.rng.random(2).tolist()
      return *_pair(example.record, is_next < 0.5, point), is_next < 0.5

    return TextMaker(draw, lambda pairs: _segments(name, pairs, making.tokenizer))

  def evaluated(
    self, name: str, records: Sequence[Mapping[str, Any]], places: np.ndarray, evaluating: Evaluating
  ) -> dict[str, Any]:
    # The Thue-Morse sequence instead of alternation: sources have periods (stories repeat four kinds of pair), so a
    # model could tell `next` from the period.
    numbers = evaluating.first + np.arange(len(records))
    follows = (np.bitwise_count(numbers) % 2 == 0).tolist()
    pairs = [(*_pair(record, real, 0.0), real) for record, real in zip(records, follows, strict=True)]
    return {array: rows[places] for array, rows in _segments(name, pairs, evaluating.tokenizer).items()}

  def texts(self, record: Mapping[str, Any]) -> Sequence[str]:
    return [record["first"], record["second"]]


@dataclasses.dataclass(frozen=True)
class TextMaker(Maker):
  """Maker that samples texts for every row, and makes the arrays of the whole batch at once.

  Attributes:
    draw: function that samples the texts of an example.
    arrays: function that makes the arrays from the texts of all rows.
  """

  draw: Callable[[Example], Any]
  arrays: Callable[[Sequence[Any]], dict[str, np.ndarray]]

  def begin(self, rows: int) -> list[Any]:
    return [None] * rows

  def fill(self, buffer: list[Any], row: int, example: Example) -> None:
    buffer[row] = self.draw(example)

  def end(self, buffer: list[Any]) -> dict[str, np.ndarray]:
    return self.arrays(buffer)


def check_filled(record: Mapping[str, Any], field: str) -> None:
  """Raise DataError if a field of a record is missing, or has something other than texts (mmjax.data.captions)."""
  value: Any = record.get(field)
  texts = value if isinstance(value, (list, tuple)) else [value]
  fault = next((wrong for text in texts if (wrong := text_fault(text))), None) if texts else "is empty"
  if fault is not None:
    raise DataError(
      f"{record['id']}: the field {field!r} {fault}. Correct it, remove the record, or use --data.on-bad-record skip."
    )


def _pair(record: Mapping[str, Any], is_next: bool, point: float) -> tuple[str, str]:
  """Return a text and its successor. If `is_next` is False, the second is one of `others`, at `point` (0 to 1)."""
  if is_next:
    return record["first"], record["second"]
  return record["first"], record["others"][int(point * len(record["others"]))]


def _segments(name: str, pairs: Sequence[tuple[str, str, bool]], tokenizer: Any) -> dict[str, np.ndarray]:
  firsts, seconds, follows = zip(*pairs, strict=True)
  text, segment = tokenizer.pairs(firsts, seconds)
  return {name: text, "segment": segment, "next": np.array(follows, np.int32)}
