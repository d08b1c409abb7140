"""Loader: endless, seeded, resumable stream of training batches. Grain prefetches and runs workers."""

import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grain.python as grain
import numpy as np
from absl import flags
from grain.experimental import DatasetOptions, WithOptionsIterDataset

from mmjax.data.batching import Batcher, Prepared, row_shapes
from mmjax.data.config import DataConfig
from mmjax.data.errors import DataError
from mmjax.data.fingerprint import check_identity, order_identity
from mmjax.data.order import Order, source_parts
from mmjax.data.orphans import end_with_parent
from mmjax.data.records import Records
from mmjax.data.text.tokenizer import Tokenizer

_ENDLESS = 2**40  # number of batches, because Grain needs one
_NAMED = 1000  # largest number of bad records that are logged, each once; all are counted
_RESTARTS = 3  # largest number of restarts of the workers without a batch between them
_SHARED_MEMORY = "/dev/shm"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Rows:
  """Grain source with the rows of one process in each global batch, as (epochs, indices, step).

  Global batch n has the positions from n * batch_size to (n + 1) * batch_size - 1 of the order. A process takes a fixed
  slice of them, so the global order is the same for any number of processes. An epoch may end inside a batch.
  """

  order: Order
  batch_size: int
  process_index: int
  process_count: int

  def __len__(self) -> int:
    return _ENDLESS

  def __getitem__(self, step: Any) -> tuple[np.ndarray, np.ndarray, int]:
    local = self.batch_size // self.process_count
    start = int(step) * self.batch_size + self.process_index * local
    epochs, indices = zip(*(self.order(position) for position in range(start, start + local)))
    return np.array(epochs), np.array(indices), int(step)


class Loader:
  """Endless iterator over host batches: dictionaries of arrays, such as image, text, index and concept (mmjax.types).

  `get_state` describes the position after the last batch that was returned, even if workers are ahead. It does not
  depend on the number of workers and processes, so a run may be resumed with other numbers.

  Args:
    config: settings of the data.
    source: the records.
    tokenizer: tokenizer of the run. None for a run without text columns.
    image_size: height and width of images.
    batch_size: global batch size.
    seed: seed of order, augmentation and sampling.
    process_index: index of this process.
    process_count: number of processes. Each one gets batch_size / process_count rows.
    fitted: values that columns learned from the data, by column name.

  Attributes:
    num_bad_records: number of bad records that this process has replaced so far.
    num_records: number of records in an epoch.
  """

  def __init__(
    self,
    config: DataConfig,
    source: Records,
    tokenizer: Tokenizer | None,
    *,
    image_size: int,
    batch_size: int,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    fitted: Mapping[str, Any] | None = None,
  ):
    if len(source) == 0:
      raise DataError("The data has no records: check the settings of --data.source, or the split.")
    if batch_size < 1 or batch_size % process_count:
      raise DataError(f"--run.batch-size {batch_size} cannot be divided among {process_count} processes.")
    self._config = config
    order = Order(source_parts(source), seed)
    self.num_records = order.num_records
    self.num_bad_records = 0
    self._step = 0
    self._identity = {"seed": seed, "num_records": order.num_records, "batch_size": batch_size}
    self._identity |= order_identity(source)  # as the order of data can change while its size stays
    rows = _Rows(order, batch_size, process_index, process_count)
    shapes = row_shapes(config, image_size, source).values()
    self._batch_bytes = batch_size // process_count * sum(4 * math.prod(shape) for shape, _ in shapes)
    batcher = Batcher(config, source, tokenizer, image_size, seed, fitted)
    self._batches = grain.MapDataset.source(rows).map(_Prepare(batcher))
    self._iterator: Any = None
    self._named: set[str] = set()

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    prepared = self._next()
    if prepared.error is not None:
      self.close()
      raise DataError(prepared.error)
    for message in prepared.bad:
      if message not in self._named and len(self._named) < _NAMED:
        log.warning("Skipped a bad record: %s", message)
        self._named.add(message)
    self.num_bad_records += len(prepared.bad)
    self._step += 1
    return prepared.batch

  def get_state(self) -> dict[str, int]:
    """Return the position in the stream, as integers, from which `set_state` continues it exactly."""
    return {"step": self._step, "num_bad_records": self.num_bad_records, **self._identity}

  def set_state(self, state: dict[str, int]) -> None:
    """Continue after the batch that was the last one when `get_state` was called.

    Raises:
      DataError: the state is of other data, another seed or another batch size, or it is damaged.
    """
    check_identity(self._identity, state)
    position = [state.get("step"), state.get("num_bad_records")]
    if not all(type(number) is int and 0 <= number < _ENDLESS for number in position):
      raise DataError(f"The saved data position is damaged: step and num_bad_records are {position}.")
    self.close()
    self._step, self.num_bad_records = state["step"], state["num_bad_records"]

  def close(self) -> None:
    """End threads and worker processes. The next batch starts them again."""
    if self._iterator is not None:
      self._iterator.close()
      self._iterator = None

  def _next(self) -> Prepared:
    """Return the next batch. Workers that were killed are restarted after the last batch."""
    for _ in range(_RESTARTS + 1):
      if self._iterator is None:
        self._iterator = self._start()
      try:
        return next(self._iterator)
      except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):  # Grain's message about a worker that died
          raise
        log.warning("A data worker died before batch %d; starting the workers again. %s", self._step, error)
        self.close()
    raise DataError(
      f"Data workers died {_RESTARTS + 1} times at batch {self._step}; most often memory ran out. "
      "Use fewer --data.workers, or less --data.prefetch and --data.cache-mb."
    )

  def _start(self) -> Any:
    ahead = max(1, self._config.prefetch)
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1 if self._config.workers else ahead)
    batches = self._batches.slice(slice(self._step, _ENDLESS)).to_iter_dataset(reading)
    if self._config.workers:
      if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's worker processes read absl flags, which this program lacks
      options = grain.MultiprocessingOptions(self._config.workers, per_worker_buffer_size=ahead)
      batches = WithOptionsIterDataset(batches, DatasetOptions(min_shm_size=self._smallest_shared(ahead)))
      batches = batches.mp_prefetch(options, worker_init_fn=end_with_parent)
    return iter(batches)

  def _smallest_shared(self, ahead: int) -> int:
    """Smallest size in bytes of arrays that workers send through shared memory.

    It is faster than a pipe, and the loader does not hang if a worker is killed while it writes. Containers often have
    too little shared memory. It is then not used.
    """
    try:
      free = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError:
      return 2**62
    return 4096 if free > 2 * self._batch_bytes * self._config.workers * (ahead + 2) else 2**62


@dataclass(frozen=True)
class _Prepare(grain.MapTransform):
  """Grain transform that calls the batcher."""

  batcher: Batcher

  def map(self, element: tuple[np.ndarray, np.ndarray, int]) -> Prepared:
    return self.batcher(*element)


def make_loader(
  config: DataConfig,
  source: Records,
  tokenizer: Tokenizer | None,
  *,
  image_size: int,
  batch_size: int,
  seed: int = 0,
  process_index: int | None = None,
  process_count: int | None = None,
  fitted: Mapping[str, Any] | None = None,
) -> Loader:
  """Make the loader of training batches of a source, split over processes.

  Args:
    config: settings of the data: columns, augmentation, caption sampling, workers and the treatment of bad records.
    source: the records.
    tokenizer: tokenizer of the run. None for a run without text columns.
    image_size: height and width of images.
    batch_size: global batch size. Each process gets batch_size / process_count rows.
    seed: seed of order, augmentation and caption sampling.
    process_index: index of this process. None: that of JAX.
    process_count: number of processes. None: that of JAX.
    fitted: values that columns learned from the data, by column name (mmjax.data.columns).

  Raises:
    DataError: there are no records, or process_count does not divide the batch size.
  """
  import jax  # not at the top: worker processes import this file and need no JAX

  return Loader(
    config,
    source,
    tokenizer,
    image_size=image_size,
    batch_size=batch_size,
    seed=seed,
    process_index=jax.process_index() if process_index is None else process_index,
    process_count=jax.process_count() if process_count is None else process_count,
    fitted=fitted,
  )
