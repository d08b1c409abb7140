"""Work of a data worker: make a batch from positions in the endless order. Results depend on no state."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.columns.base import Column, Example, Making, Shapes, check_record
from mmjax.data.columns.memory import Memory
from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError
from mmjax.data.features import run_columns
from mmjax.data.records import Records, siblings
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.data.transforms import ExampleRng

_MOST_CHECKED = 100_000
_MAX_BAD = 1000  # bad records in a row; with more, the dataset as a whole is wrong
log = logging.getLogger(__name__)


class Prepared(NamedTuple):
  """Result of a worker.

  Attributes:
    batch: arrays by name. Empty after an error.
    bad: messages about bad records.
    error: message of the error that stopped the batch, or None.
  """

  batch: dict[str, np.ndarray]
  bad: list[str]
  error: str | None = None


def row_shapes(config: DataConfig, image_size: int, records: Any = None) -> Shapes:
  """Return shape and dtype of one row of every array in a batch, by name.

  Args:
    config: settings of the data, with the columns and text lengths.
    image_size: height and width of images.
    records: the open source. None: what the configured source gives, which need not be open.
  Raises: DataError: two columns have an array of the same name.
  """
  shapes: Shapes = dict.fromkeys(("index", "concept"), ((), np.int32))
  makers = dict.fromkeys(shapes, "every data set")
  for name, column in run_columns(config, records).items():
    for array, shape in column.arrays(name, Making(config, image_size)).items():
      if array in shapes:
        raise DataError(
          f"--data.columns: {name!r} ({type(column).__name__}) makes an array {array!r}, as {makers[array]} does. "
          "Arrays need different names: rename a column, or have its method `arrays` use the name."
        )
      shapes[array], makers[array] = shape, f"the column {name!r}"
  return shapes


class Batcher:
  """Makes batches of training examples from positions in the endless order.

  Decoded images and tokenized texts are cached, which affects only the speed.

  Args:
    config: settings of the data: columns, augmentation and the treatment of bad records.
    source: the records.
    tokenizer: tokenizer of the run. None for a run without text columns.
    image_size: height and width of images.
    seed: seed of augmentation and sampling.
    fitted: values that columns learned from the data, by column name.
  """

  def __init__(
    self,
    config: DataConfig,
    source: Records,
    tokenizer: Tokenizer | None,
    image_size: int,
    seed: int,
    fitted: Mapping[str, Any] | None = None,
  ):
    self._source, self._seed = source, seed
    self._skips = config.on_bad_record == "skip"
    memory = Memory(config.cache_mb * 2**20)
    making = Making(config, image_size, tokenizer, fitted or {}, memory, seed)
    self._columns: Mapping[str, Column] = run_columns(config, source)
    self._makers = [column.maker(name, making) for name, column in self._columns.items()]
    self._checked: set[int] = set()

  def __call__(self, epochs: np.ndarray, indices: np.ndarray, step: int = 0) -> Prepared:
    """Make the batch of a training step, with one row per example (epoch, index).

    A bad record ends the batch with an error. With data.on_bad_record "skip", the next good record replaces it.
    """
    rows = len(indices)
    batch = {name: np.empty(rows, np.int32) for name in ("index", "concept")}
    buffers = [maker.begin_step(rows, step) for maker in self._makers]
    rng, bad = ExampleRng(self._seed), []
    for row, (epoch, index) in enumerate(zip(epochs.tolist(), indices.tolist())):
      for step in range(min(len(self._source), _MAX_BAD)):
        candidate = (index + step) % len(self._source)
        try:
          self._fill(batch, buffers, row, candidate, rng(epoch, candidate))
          break
        except DataError as error:
          bad.append(str(error))
          if not self._skips:
            return Prepared({}, bad, str(error))
      else:
        return Prepared({}, bad, f"No record of {step + 1} in a row is good; the last one: {bad[-1]}")
    for maker, buffer in zip(self._makers, buffers, strict=True):
      batch |= maker.end(buffer)
    return Prepared(batch, bad)

  def _fill(
    self, batch: dict[str, np.ndarray], buffers: list[Any], row: int, index: int, rng: np.random.Generator
  ) -> None:
    record = self._source[index]
    if index not in self._checked:
      for name, column in self._columns.items():
        check_record(name, column, record)
      if len(self._checked) < _MOST_CHECKED:
        self._checked.add(index)
    batch["index"][row] = index
    batch["concept"][row] = record["concept"]
    example = Example(index, record, rng, lambda: siblings(self._source, index), self._source.__getitem__)
    for maker, buffer in zip(self._makers, buffers, strict=True):
      maker.fill(buffer, row, example)
