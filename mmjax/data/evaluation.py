"""Records in order, once, in batches of one size: the input of evaluation."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mmjax.data.features import source_features
from mmjax.data.images import decode, decode_mask
from mmjax.data.lazy_rows import LazyRows
from mmjax.data.sources import Record, Source
from mmjax.data.tokenizer import Tokenizer
from mmjax.data.transforms import PRIMARY, EvalImage
from mmjax.data.words import check_record, columns, pair


def evaluation_batches(
  source: Source,
  transform: EvalImage,
  tokenizer: Tokenizer,
  *,
  batch_size: int,
  caption: Callable[[Any], str] | None = None,
) -> Iterator[dict[str, Any]]:
  """Batches of "index", "concept", "valid", and what the source fills ("image", "text", ...; mmjax.data.features).

  The last batch is filled up by repeating its last record; `valid` (bool) is False for the repetitions. All are arrays,
  but for "image" and "relevance": they are LazyRows, and decoded where they are asked for.

  Args:
    source: the records.
    transform: mmjax.data.eval_transform(...).
    tokenizer: makes the captions ids.
    batch_size: rows of every batch.
    caption: chooses a record's caption; by default its first main caption.

  Raises:
    DataError: a record without caption, by name; where it is asked for, an unreadable picture.
  """
  choose = caption or (lambda record: record["captions"][PRIMARY][0])
  features = source_features(source)
  for start in range(0, len(source), batch_size):
    indices = np.arange(start, start + batch_size)
    valid = indices < len(source)
    indices = np.minimum(indices, len(source) - 1).astype(np.int32)
    records = [source[index] for index in indices[valid].tolist()]
    for record in records:
      check_record(record, features)
    concepts = np.array([record["concept"] for record in records], np.int32)
    entries = _texts(records, indices, tokenizer, features, choose) | {"concept": concepts}
    missing = batch_size - len(records)
    batch = {
      key: np.pad(rows, [(0, missing)] + [(0, 0)] * (rows.ndim - 1), mode="edge") for key, rows in entries.items()
    }
    yield batch | _pictures(records, indices - start, transform, features) | {"index": indices, "valid": valid}


def _pictures(
  records: Sequence[Record], places: np.ndarray, transform: EvalImage, features: Sequence[str]
) -> dict[str, LazyRows]:
  """Pictures, and the masks of what is relevant in them, of the records at some places."""

  def shown(wanted: list[int]) -> list[np.ndarray]:
    return [transform(records[place]["image"], record=records[place]["id"]) for place in wanted]

  def relevant(wanted: list[int]) -> list[np.ndarray]:
    return [_mask(records[place], transform) for place in wanted]

  side = transform.size
  kinds = {"image": LazyRows(places, (side, side, 3), shown), "relevance": LazyRows(places, (side, side), relevant)}
  return {name: rows for name, rows in kinds.items() if name in features}


def _mask(record: Record, transform: EvalImage) -> np.ndarray:
  size = decode(record["image"], record=record["id"], max_pixels=transform.max_pixels).size
  return transform.mask(decode_mask(record["relevance"], size, record=record["id"]))


def _texts(
  records: Sequence[Record],
  indices: np.ndarray,
  tokenizer: Tokenizer,
  features: Sequence[str],
  choose: Callable[[Any], str],
) -> dict[str, np.ndarray]:
  """Captions, questions with answers, or pairs, half of which are of a text and the one that follows it."""
  if "next" in features:
    # Thue and Morse's order, not every other pair: sources have periods (stories go through four kinds of pair), and
    # what tells an even place from an odd one must not tell what follows.
    follows = np.bitwise_count(indices[: len(records)]) % 2 == 0
    pairs = [pair(record, bool(real), 0.0) for record, real in zip(records, follows)]
    firsts, seconds = zip(*pairs)
    return columns({"first": firsts, "second": seconds}, tokenizer) | {"next": follows.astype(np.int32)}
  if "answer" in features:
    texts = {"text": [record["question"] for record in records], "answer": [record["answer"] for record in records]}
    return columns(texts, tokenizer)
  return columns({"text": [choose(record) for record in records]}, tokenizer)
