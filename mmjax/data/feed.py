"""Prefetching of batches to the device, with a measurement of the time that the step waits for them."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_END = object()


class Feed:
  """Iterator over `put(batch)` for the batches of an iterator. A thread prepares up to `depth` batches ahead.

  Args:
    iterator: yields batches.
    put: function that is applied to each batch in the thread.
    depth: number of batches ahead, at least 1.

  Attributes:
    seconds_waited: time that the consumer waited for the last batch.
    total_seconds_waited: time that it waited for all batches.

  Raises:
    ValueError: depth is less than 1.
  """

  def __init__(self, iterator: Any, put: Callable[[Any], Any], depth: int = 2):
    if depth < 1:
      raise ValueError(f"depth must be at least 1, not {depth}.")
    self._source, self._put, self._depth = iterator, put, depth
    self._thread: threading.Thread | None = None
    self._state: Any = self._current_state()
    self.seconds_waited = 0.0
    self.total_seconds_waited = 0.0

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    """Return the next batch. An exception in the thread is raised here, in the place of its batch."""
    if self._thread is None:
      self._start()
    start = time.perf_counter()
    item, state, error = self._queue.get()
    self.seconds_waited = time.perf_counter() - start
    self.total_seconds_waited += self.seconds_waited
    if error is not None:
      self._thread = None  # the thread has ended; the next call starts a new one
      raise error
    self._state = state
    if item is _END:
      self._thread = None
      raise StopIteration
    return item

  def get_state(self) -> Any:
    """State of the iterator just after the last batch that was returned, not after those prepared ahead."""
    return self._state

  def set_state(self, state: Any) -> None:
    """Drop the batches that are prepared ahead, and continue from a state."""
    self.close()
    self._source.set_state(state)
    self._state = state

  def close(self) -> None:
    """End the thread and the iterator's workers, if it has any. Batches that are prepared ahead are dropped."""
    if self._thread is not None:
      self._stopped.set()
      self._thread.join()
      self._thread = None
      if hasattr(self._source, "set_state"):  # go back to before the dropped batches
        self._source.set_state(self._state)
    if hasattr(self._source, "close"):
      self._source.close()

  def __enter__(self) -> "Feed":
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()

  def _current_state(self) -> Any:
    return self._source.get_state() if hasattr(self._source, "get_state") else None

  def _start(self) -> None:
    self._queue: queue.Queue[tuple[Any, Any, BaseException | None]] = queue.Queue(self._depth)
    self._stopped = threading.Event()
    self._thread = threading.Thread(target=self._run, args=(self._queue, self._stopped), daemon=True, name="feed")
    self._thread.start()

  def _run(self, ready: queue.Queue, stopped: threading.Event) -> None:
    while not stopped.is_set():
      try:
        batch = next(self._source, _END)
        item = batch if batch is _END else self._put(batch)
        entry: tuple[Any, Any, BaseException | None] = item, self._current_state(), None
      except BaseException as error:  # passed to the consumer, which raises it
        entry = _END, None, error
      _offer(ready, entry, stopped)
      if entry[0] is _END:
        return


def _offer(ready: queue.Queue, entry: Any, stopped: threading.Event) -> None:
  """Put an entry into a bounded queue, unless the consumer has stopped."""
  while not stopped.is_set():
    try:
      return ready.put(entry, timeout=0.1)
    except queue.Full:
      continue


def device_prefetch(iterator: Any, put: Callable[[Any], Any], depth: int = 2) -> Feed:
  """Prefetch batches from host to device: `put` runs for the next batches while the step computes.

  Args:
    iterator: yields batches on the host. If it has get_state and set_state, like a Loader, these of the feed work too.
    put: places a batch on the devices.
    depth: number of batches on the devices ahead of the one in use.
  Returns: the iterator over batches on the devices.
  Raises: ValueError: depth is less than 1.
  """
  return Feed(iterator, put, depth)
