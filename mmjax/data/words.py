"""The texts of records, and what a batch makes of them: ids, segments, answers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from mmjax.data.errors import DataError
from mmjax.data.sources import Record
from mmjax.data.tokenizer import Tokenizer
from mmjax.data.transforms import check_captions


def text_fields(features: Sequence[str], views: int = 1) -> tuple[str, ...]:
  """The columns of strings that a batch with these features is made from."""
  if "next" in features:
    return ("first", "second")
  if "answer" in features:
    return ("text", "answer")
  return ("text", "text2")[:views]


def pair(record: Record, is_next: bool, point: float) -> tuple[str, str]:
  """A text and the one that follows it, or another one: the one at `point` (0 to 1) of those that do not."""
  if is_next:
    return record["first"], record["second"]
  return record["first"], record["others"][int(point * len(record["others"]))]


def columns(
  texts: Mapping[str, Sequence[str]],
  tokenizer: Tokenizer,
  ids: Callable[[Sequence[str]], Int32[np.ndarray, "n t"]] | None = None,
) -> dict[str, np.ndarray]:
  """The entries of a batch that come from strings.

  Args:
    texts: columns by the names of text_fields.
    tokenizer: makes them ids.
    ids: in its place for whole texts, where the caller remembers them.
  """
  if "first" in texts:
    text, segment = tokenizer.pairs(texts["first"], texts["second"])
    return {"text": text, "segment": segment}
  result = {name: (ids or tokenizer)(texts[name]) for name in ("text", "text2") if name in texts}
  if "answer" in texts:
    result["answer"] = tokenizer.answer_ids(texts["answer"])
    result["answer_text"] = tokenizer.answer_text(texts["answer"])
  return result


def check_record(record: Record, features: Sequence[str]) -> None:
  """Raises DataError, naming record and field, where a record lacks what its source says it has."""
  if "next" not in features and "answer" not in features:
    return check_captions(record["captions"], record["id"])
  fields = ("first", "second", "others") if "next" in features else ("question", "answer", "answers")
  for field in fields:
    value: Any = record.get(field)
    texts = [value] if isinstance(value, str) else value
    if not texts or any(not text.strip() for text in texts):
      raise DataError(
        f"{record['id']}: the field {field!r} is empty. Fill it in, remove the record, or use "
        "--data.on-bad-record skip."
      )
