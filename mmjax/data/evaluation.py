"""Batches for evaluation: all records once, in order, in batches of one size."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mmjax.data.columns.base import Column, Evaluating, check_record
from mmjax.data.features import source_features
from mmjax.data.records import PRIMARY, Records
from mmjax.data.sources.base import columns_of_features
from mmjax.data.text.tokenizer import Tokenizer
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
  """Make batches with the arrays "index", "concept" and "valid", and those of the columns.

  The last batch is padded with its last record. `valid` (bool) is False for the padding. Images and masks are LazyRows,
  which are decoded when they are read.

  Args:
    source: the records.
    transform: transform of images, from mmjax.data.eval_transform. None for data without images.
    tokenizer: tokenizer of the run. None for data without text.
    batch_size: number of rows of every batch.
    caption: function that chooses the caption of a record. None: the first main caption.
    columns: columns by name. None: those of the source.
    fitted: values that columns learned from the training data, by column name.

  Raises:
    DataError: a record lacks a field, such as its caption, or (when it is read) an image is damaged. The message names
      the record.
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
      for name, column in columns.items():
        check_record(name, column, record)
    places = indices - start
    batch: dict[str, Any] = {"index": indices, "valid": valid}
    batch["concept"] = np.array([record["concept"] for record in records], np.int32)[places]
    for name, column in columns.items():
      batch |= column.evaluated(name, records, places, dataclasses.replace(evaluating, first=start))
    yield batch
