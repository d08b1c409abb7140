"""Batches on the device before the step asks for them, and how long the step had to wait all the same."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_END = object()


class Feed:
  """Iterates over `put(batch)` for the batches of an iterator, `depth` of them ahead, in a thread.

  Attributes:
    seconds_waited: how long the last batch kept its consumer waiting.
    total_seconds_waited: all of them together.
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
    """The next batch, on the device. An exception in the thread comes out here, in the batch's place."""
    if self._thread is None:
      self._start()
    start = time.perf_counter()
    item, state, error = self._queue.get()
    self.seconds_waited = time.perf_counter() - start
    self.total_seconds_waited += self.seconds_waited
    if error is not None:
      self._thread = None  # it has ended; asking again starts anew
      raise error
    self._state = state
    if item is _END:
      self._thread = None
      raise StopIteration
    return item

  def get_state(self) -> Any:
    """The iterator's state just after the last batch handed out, however far the thread is ahead."""
    return self._state

  def set_state(self, state: Any) -> None:
    """Drops what is in flight and continues from a state."""
    self.close()
    self._source.set_state(state)
    self._state = state

  def close(self) -> None:
    """Ends the thread, and the iterator's workers if it has any. The batches in flight are dropped."""
    if self._thread is not None:
      self._stopped.set()
      self._thread.join()
      self._thread = None
      if hasattr(self._source, "set_state"):  # as if the dropped batches had never been asked for
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
      except BaseException as error:  # handed to the consumer, who raises it
        entry = _END, None, error
      _offer(ready, entry, stopped)
      if entry[0] is _END:
        return


def _offer(ready: queue.Queue, entry: Any, stopped: threading.Event) -> None:
  """Puts an entry into a bounded queue unless the consumer has gone."""
  while not stopped.is_set():
    try:
      return ready.put(entry, timeout=0.1)
    except queue.Full:
      continue


def device_prefetch(iterator: Any, put: Callable[[Any], Any], depth: int = 2) -> Feed:
  """Double buffering from host to device: `put` runs for the next batches while the step computes.

  Args:
    iterator: gives host batches; with get_state and set_state (as a Loader has), so has the feed.
    put: places a host batch on the devices.
    depth: batches on the device ahead of the one being used.
  """
  return Feed(iterator, put, depth)
