"""One batch out of positions in the endless order: what a worker does, with no state that a result depends on."""

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mmjax.data.columns.base import Column, Example, Making, Shapes
from mmjax.data.columns.memory import Memory
from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError
from mmjax.data.features import run_columns
from mmjax.data.records import Records, siblings
from mmjax.data.tokenizer import Tokenizer
from mmjax.data.transforms import ExampleRng

_MOST_CHECKED = 100_000
_MAX_BAD = 1000  # one after the other, and the data is not what it should be
log = logging.getLogger(__name__)


class Prepared(NamedTuple):
  """A batch on its way to the consumer: `batch`, or the `error` that stopped it, and the bad records met."""

  batch: dict[str, np.ndarray]
  bad: list[str]
  error: str | None = None


def row_shapes(config: DataConfig, image_size: int, records: Any = None) -> Shapes:
  """Shape and dtype of one row of every array in a batch, by name.

  Args:
    config: columns and text lengths.
    image_size: height and width of an image.
    records: the open source, where there is one.
  Raises: DataError where two columns give an array of one name.
  """
  shapes: Shapes = dict.fromkeys(("index", "concept"), ((), np.int32))
  for name, column in run_columns(config, records).items():
    for array, shape in column.arrays(name, Making(config, image_size)).items():
      if array in shapes:
        raise DataError(f"--data.columns: {name!r} gives an array {array!r}, which there is already. Rename a column.")
      shapes[array] = shape
  return shapes


class Batcher:
  """Positions of the endless order to a batch of training examples.

  Decoded images and tokenized texts are remembered, which changes the speed and nothing else.

  Args:
    config: columns, augmentation, and what happens to bad records.
    source: the records.
    tokenizer: makes ids of texts; None where no column is text.
    image_size: height and width of the images.
    seed: of augmentation and sampling.
    fitted: what columns learnt of the data, by name.
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
    making = Making(config, image_size, tokenizer, fitted or {}, memory)
    self._columns: Mapping[str, Column] = run_columns(config, source)
    self._makers = [column.maker(name, making) for name, column in self._columns.items()]
    self._checked: set[int] = set()

  def __call__(self, epochs: np.ndarray, indices: np.ndarray) -> Prepared:
    """The examples (epoch, index), row by row. Bad records stop it, or are replaced by the next good one."""
    rows = len(indices)
    batch = {name: np.empty(rows, np.int32) for name in ("index", "concept")}
    buffers = [maker.begin(rows) for maker in self._makers]
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
      for column in self._columns.values():
        column.check(record)
      if len(self._checked) < _MOST_CHECKED:
        self._checked.add(index)
    batch["index"][row] = index
    batch["concept"][row] = record["concept"]
    example = Example(index, record, rng, lambda: siblings(self._source, index), self._source.__getitem__)
    for maker, buffer in zip(self._makers, buffers, strict=True):
      maker.fill(buffer, row, example)
