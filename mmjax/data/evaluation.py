"""Records in order, once, in batches of one size: the input of evaluation."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mmjax.data.columns.base import Column, Evaluating
from mmjax.data.features import source_features
from mmjax.data.records import PRIMARY, Records
from mmjax.data.sources.base import columns_of_features
from mmjax.data.tokenizer import Tokenizer
from mmjax.data.transforms import EvalImage


def evaluation_batches(
  source: Records,
  transform: EvalImage | None,
  tokenizer: Tokenizer | None,
  *,
  batch_size: int,
  caption: Callable[[Any], str] | None = None,
  columns: Mapping[str, Column] | None = None,
  fitted: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
  """Batches of "index", "concept", "valid", and the arrays of the columns.

  The last batch is filled up by repeating its last record; `valid` (bool) is False for the repetitions. All are arrays,
  but for images and masks: they are LazyRows, and decoded where they are asked for.

  Args:
    source: the records.
    transform: mmjax.data.eval_transform(...).
    tokenizer: makes ids of texts.
    batch_size: rows of every batch.
    caption: chooses a record's caption; by default its first main caption.
    columns: by name; those of the source where it is None.
    fitted: what columns learnt of the training data, by name.

  Raises:
    DataError: a record without caption, by name; where it is asked for, an unreadable image.
  """
  choose = caption or (lambda record: record["captions"][PRIMARY][0])
  columns = columns_of_features(source_features(source)) if columns is None else columns
  evaluating = Evaluating(transform, tokenizer, choose, fitted or {})
  for start in range(0, len(source), batch_size):
    indices = np.arange(start, start + batch_size)
    valid = indices < len(source)
    indices = np.minimum(indices, len(source) - 1).astype(np.int32)
    records = [source[index] for index in indices[valid].tolist()]
    for record in records:
      for column in columns.values():
        column.check(record)
    places = indices - start
    batch: dict[str, Any] = {"index": indices, "valid": valid}
    batch["concept"] = np.array([record["concept"] for record in records], np.int32)[places]
    for name, column in columns.items():
      batch |= column.evaluated(name, records, places, dataclasses.replace(evaluating, first=start))
    yield batch
