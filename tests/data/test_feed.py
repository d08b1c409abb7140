"""The thread between host and device."""

import threading
import time

import pytest

from mmjax.data import DataError, device_prefetch


class Counter:
  """Counts up, and knows where it is."""

  def __init__(self, stop=None, fail_at=None):
    self.position, self.stop, self.fail_at, self.closed = 0, stop, fail_at, 0

  def __iter__(self):
    return self

  def __next__(self):
    if self.position == self.fail_at:
      raise DataError("record 3 is bad")
    if self.position == self.stop:
      raise StopIteration
    self.position += 1
    return self.position

  def get_state(self):
    return {"position": self.position}

  def set_state(self, state):
    self.position = state["position"]

  def close(self):
    self.closed += 1


def feed_threads():
  return [thread for thread in threading.enumerate() if thread.name == "feed"]


def wait_until(condition):
  for _ in range(500):
    if condition():
      return
    time.sleep(0.01)
  raise AssertionError("it never happened")


def test_batches_come_in_order_and_end():
  with device_prefetch(Counter(stop=5), lambda batch: batch * 10) as feed:
    assert list(feed) == [10, 20, 30, 40, 50]
  assert list(device_prefetch(iter([1, 2]), str)) == ["1", "2"]  # any iterator will do
  assert not feed_threads()


def test_put_runs_ahead_in_another_thread():
  put_by = []
  with device_prefetch(Counter(), lambda batch: put_by.append(threading.current_thread().name), depth=3) as feed:
    next(feed)
    wait_until(lambda: len(put_by) >= 4)  # three in the queue, while nobody asks
    assert set(put_by) == {"feed"}


def test_the_state_belongs_to_the_last_batch_handed_out():
  source = Counter()
  with device_prefetch(source, lambda batch: batch, depth=4) as feed:
    assert feed.get_state() == {"position": 0}
    assert [next(feed), next(feed)] == [1, 2]
    wait_until(lambda: source.position >= 6)
    assert feed.get_state() == {"position": 2}
    feed.set_state({"position": 100})
    assert next(feed) == 101 and feed.get_state() == {"position": 101}


def test_closing_ends_the_thread_and_the_workers_and_takes_back_what_was_ahead():
  source = Counter()
  feed = device_prefetch(source, lambda batch: batch)
  next(feed)
  feed.close()
  assert not feed_threads() and source.closed and source.position == 1
  assert next(feed) == 2  # it can go on
  feed.close()


def test_exceptions_come_out_where_the_batch_would_have():
  feed = device_prefetch(Counter(fail_at=2), lambda batch: batch)
  assert [next(feed), next(feed)] == [1, 2]
  with pytest.raises(DataError, match="record 3 is bad"):
    next(feed)
  assert feed.get_state() == {"position": 2}

  def broken_put(_):
    raise RuntimeError("device is gone")

  with pytest.raises(RuntimeError, match="device is gone"):
    next(device_prefetch(Counter(), broken_put))
  wait_until(lambda: not feed_threads())


def test_waiting_is_measured():
  def slow(batch):
    time.sleep(0.05)
    return batch

  with device_prefetch(Counter(), slow, depth=1) as feed:
    next(feed)
    assert feed.seconds_waited >= 0.04
    time.sleep(0.3)  # meanwhile the next one is ready
    next(feed)
    assert feed.seconds_waited < 0.04
    assert feed.total_seconds_waited >= 0.04


def test_depth_must_be_positive():
  with pytest.raises(ValueError, match="depth"):
    device_prefetch(Counter(), lambda batch: batch, depth=0)
