"""Dynamic batches: items of many requests are computed together, in batches of a few fixed sizes."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mmjax.deploy.serving.served import Ability

Observe = Callable[[str, int, int, float], None]
"""(ability, items, size of the batch, seconds), called after each batch."""
_FULL = 0.75  # a batch is padded if this share of it is items; else the smaller size is filled, and the rest waits


class Overloaded(Exception):
  """The queue is full."""


@dataclasses.dataclass
class Waiting:
  """An item in the queue: when it came, and the future of its result."""

  item: Any
  result: asyncio.Future[Any]
  since: float


def chosen_size(waiting: int, sizes: Sequence[int]) -> int:
  """The size of the next batch.

  Args:
    waiting: number of items that wait, at least 1.
    sizes: the sizes, ascending.
  Returns: the smallest size that holds all items, if they fill at least three quarters of it; else the next smaller
    one, which is full.

  Example:
    >>> [chosen_size(n, (1, 2, 4, 8)) for n in (1, 3, 5, 6, 9)]
    [1, 4, 4, 8, 8]
  """
  place = next((place for place, size in enumerate(sizes) if size >= waiting), len(sizes) - 1)
  return sizes[place] if waiting >= _FULL * sizes[place] or place == 0 else sizes[place - 1]


def compute(ability: Ability, items: Sequence[Any], size: int) -> list[Any]:
  """Results of some items, computed as one batch of a size. The last item fills up the batch."""
  return list(ability.ask([*items, *[items[-1]] * (size - len(items))]))[: len(items)]


class Batcher:
  """Computes items in batches, in one thread, in the order in which their batches' first items came.

  Use it inside one event loop. An item is computed once, and its result is given once.

  Args:
    abilities: functions of batches, by name.
    max_queue: items that may wait. More are refused.
    window: longest time in seconds that an item waits for others that are being prepared (see `expecting`), while the
      thread is free. Nothing waits for requests that may come.
    observe: called after each batch.
  """

  def __init__(
    self,
    abilities: Mapping[str, Ability],
    *,
    max_queue: int = 1024,
    window: float = 0.005,
    observe: Observe = lambda *_: None,
  ):
    self._abilities, self._max_queue, self._window, self._observe = abilities, max_queue, window, observe
    self._lanes: dict[str, collections.deque[Waiting]] = {name: collections.deque() for name in abilities}
    self._expected = dict.fromkeys(abilities, 0)
    self._arrived = asyncio.Event()
    self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="batches")
    self._task: asyncio.Task[None] | None = None
    self._stopping = False

  @property
  def waiting(self) -> int:
    """Number of items that wait."""
    return sum(map(len, self._lanes.values()))

  def start(self) -> None:
    """Begin to compute. Call it in the event loop."""
    self._task = asyncio.get_running_loop().create_task(self._run())

  async def stop(self) -> None:
    """Stop after the batch that is being computed. Items that wait are cancelled."""
    self._stopping = True
    self._arrived.set()
    if self._task is not None:
      await self._task
    for lane in self._lanes.values():
      while lane:
        lane.popleft().result.cancel()
    await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

  @contextlib.contextmanager
  def expecting(self, name: str, count: int) -> Iterator[None]:
    """Context in which items of an ability are prepared. They are asked for right after it."""
    self._expected[name] += count
    try:
      yield
    finally:
      self._expected[name] -= count
      self._arrived.set()

  async def ask(self, name: str, items: Sequence[Any]) -> list[Any]:
    """Compute the results of some items, all or none of which are accepted.

    Args:
      name: name of the ability.
      items: the items.
    Raises: Overloaded: the queue has no room for them.
    """
    if self.waiting + len(items) > self._max_queue:
      raise Overloaded
    loop, now = asyncio.get_running_loop(), time.monotonic()
    asked = [Waiting(item, loop.create_future(), now) for item in items]
    self._lanes[name].extend(asked)
    self._arrived.set()
    try:
      return [await each.result for each in asked]
    finally:  # after an error or a timeout, nobody reads the others
      for each in asked:
        if not each.result.done():
          each.result.cancel()
        elif not each.result.cancelled():
          each.result.exception()

  async def _run(self) -> None:
    while not self._stopping:
      lanes = {name: lane for name, lane in self._lanes.items() if lane}
      if not lanes:
        self._arrived.clear()
        await self._arrived.wait()
        continue
      name = min(lanes, key=lambda name: lanes[name][0].since)
      await self._fill(name)
      await self._batch(name)

  async def _fill(self, name: str) -> None:
    """Wait until a batch is full, or no more items are prepared, or its first item has waited for the window."""
    lane, size = self._lanes[name], self._abilities[name].sizes[-1]
    while not self._stopping and len(lane) < size and self._expected[name]:
      left = lane[0].since + self._window - time.monotonic()
      if left <= 0:
        return
      self._arrived.clear()
      with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(self._arrived.wait(), left)

  async def _batch(self, name: str) -> None:
    """Compute the next batch of an ability."""
    lane, ability = self._lanes[name], self._abilities[name]
    live = [each for each in lane if not each.result.done()]  # requests that ran out of time are left out
    lane.clear()
    if not live:
      return
    size = chosen_size(len(live), ability.sizes)
    taken = live[:size]
    lane.extend(live[size:])
    began = time.monotonic()
    items = [each.item for each in taken]
    try:
      job = functools.partial(compute, ability, items, size)
      results: list[Any] = await asyncio.get_running_loop().run_in_executor(self._thread, job)
    except Exception as error:
      for each in taken:
        if not each.result.done():
          each.result.set_exception(error)
      return
    for each, result in zip(taken, results, strict=True):
      if not each.result.done():
        each.result.set_result(result)
    self._observe(name, len(taken), size, time.monotonic() - began)
