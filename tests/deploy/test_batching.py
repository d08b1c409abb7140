"""Batches of the service: every item once, its result to who asked for it, only sizes that are compiled."""

import asyncio
import time

import pytest

from mmjax.deploy.serving.batching import Batcher, Overloaded
from mmjax.deploy.serving.served import Ability, powers


class Doubling:
  """Doubles numbers, and remembers the batches."""

  def __init__(self, seconds=0.0):
    self.seconds, self.batches = seconds, []

  def __call__(self, items):
    self.batches.append(list(items))
    time.sleep(self.seconds)
    if any(item < 0 for item in items):
      raise ValueError("negative")
    return [2 * item for item in items]


def run(work, *abilities, **options):
  """The result of `work(batcher)`, with a batcher of some functions named "0", "1", ..."""
  made = {str(place): Ability(function, 0, powers(8)) for place, function in enumerate(abilities)}

  async def inside():
    batcher = Batcher(made, **options)
    batcher.start()
    try:
      return await work(batcher)
    finally:
      await batcher.stop()

  return asyncio.run(inside())


def test_every_item_is_computed_once_and_answered_to_its_asker():
  function, observed = Doubling(0.0005), []

  async def client(batcher, first):
    await asyncio.sleep(first % 7 / 2000)
    items = list(range(first, first + first % 5 + 1))
    assert await batcher.ask("0", items) == [2 * item for item in items]
    return items

  async def work(batcher):
    return await asyncio.gather(*(client(batcher, 10 * n) for n in range(300)))

  asked = run(work, function, observe=lambda *seen: observed.append(seen))
  assert {len(batch) for batch in function.batches} <= {1, 2, 4, 8}
  computed = [item for batch, (_, items, *_) in zip(function.batches, observed, strict=True) for item in batch[:items]]
  assert sorted(computed) == sorted(item for items in asked for item in items)
  assert len(function.batches) < len(computed) / 3  # they are batched
  assert all(size == len(batch) for batch, (_, _, size, _) in zip(function.batches, observed, strict=True))


def test_a_batch_waits_for_items_that_are_prepared_and_for_no_others():
  async def client(batcher, number):
    with batcher.expecting("0", 1):
      await asyncio.sleep(number / 200)
    return await batcher.ask("0", [number])

  async def work(batcher):
    return await asyncio.gather(*(client(batcher, number) for number in range(4)))

  patient, hasty = Doubling(), Doubling()
  began = time.monotonic()
  assert run(work, patient, window=5.0) == [[0], [2], [4], [6]] and patient.batches == [[0, 1, 2, 3]]
  assert run(work, hasty, window=1e-4) == [[0], [2], [4], [6]] and len(hasty.batches) > 1
  assert run(lambda batcher: batcher.ask("0", [1]), Doubling(), window=5.0) == [2]
  assert time.monotonic() - began < 5


def test_abilities_take_turns():
  order, slow = [], Doubling(0.01)

  def noted(name, function):
    return lambda items: order.append(name) or function(items)

  async def work(batcher):
    many = [asyncio.create_task(batcher.ask("0", [n])) for n in range(12)]
    await asyncio.sleep(0)  # they wait
    other = asyncio.create_task(batcher.ask("1", [1]))
    await asyncio.sleep(0)
    later = [asyncio.create_task(batcher.ask("0", [n])) for n in range(12)]
    return await asyncio.gather(*many, other, *later)

  found = run(work, noted("many", slow), noted("other", Doubling()))
  assert found[12] == [2] and order.count("other") == 1
  assert order.index("other") <= 2  # 24 items in batches of 8: not the last


def test_a_full_queue_takes_all_items_of_a_request_or_none():
  function = Doubling(0.05)

  async def work(batcher):
    first = asyncio.create_task(batcher.ask("0", [1, 2]))
    await asyncio.sleep(0.02)  # they are being computed
    second = asyncio.create_task(batcher.ask("0", [3, 4, 5]))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
      await batcher.ask("0", [6, 7])
    assert batcher.waiting == 3
    return await first, await second, await batcher.ask("0", [8, 9])

  assert run(work, function, max_queue=4) == ([2, 4], [6, 8, 10], [16, 18])
  assert not any(item in (6, 7) for batch in function.batches for item in batch)


def test_an_error_reaches_those_of_its_batch_and_nobody_after_them():
  async def work(batcher):
    found = await asyncio.gather(batcher.ask("0", [1]), batcher.ask("0", [-1]), return_exceptions=True)
    return found, await batcher.ask("0", [5])

  (first, second), after = run(work, Doubling())
  assert isinstance(first, ValueError) and isinstance(second, ValueError) and after == [10]


def test_who_gave_up_is_not_computed():
  function = Doubling(0.05)

  async def work(batcher):
    first = asyncio.create_task(batcher.ask("0", [1]))
    await asyncio.sleep(0.02)
    with pytest.raises(TimeoutError):
      await asyncio.wait_for(batcher.ask("0", [2, 3]), 0.005)
    return await first, await batcher.ask("0", [4])

  assert run(work, function) == ([2], [8])
  assert [set(batch) for batch in function.batches] == [{1}, {4}]


def test_stopping_cancels_what_waits():
  async def inside():
    batcher = Batcher({"0": Ability(Doubling(0.05), 0, (1,))})
    batcher.start()
    tasks = [asyncio.create_task(batcher.ask("0", [n])) for n in range(3)]
    await asyncio.sleep(0.02)
    await batcher.stop()
    return await asyncio.gather(*tasks, return_exceptions=True)

  assert any(isinstance(each, asyncio.CancelledError) for each in asyncio.run(inside()))
