"""Worker processes that are killed: the stream goes on, exactly."""

import dataclasses
import logging
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from mmjax.data import DataError, make_loader


@pytest.fixture
def working(emoji_config, train_source, tokenizer):
  config = dataclasses.replace(emoji_config, workers=1, prefetch=1)
  loader = make_loader(
    config, train_source, tokenizer, image_size=12, batch_size=8, seed=3, process_index=0, process_count=1
  )
  yield loader
  loader.close()


def kill(number: int) -> None:
  for worker in multiprocessing.active_children()[:number]:
    os.kill(worker.pid, signal.SIGKILL)


def test_a_killed_worker_is_replaced_and_no_batch_is_lost(working, emoji_config, train_source, tokenizer, caplog):
  alone = make_loader(
    emoji_config, train_source, tokenizer, image_size=12, batch_size=8, seed=3, process_index=0, process_count=1
  )
  for step in range(10):
    batch, expected = next(working), next(alone)
    for name in expected:
      np.testing.assert_array_equal(batch[name], expected[name])
    if step == 2:
      kill(1)
      killed = time.monotonic()
  assert time.monotonic() - killed < 60, "it stalled"
  assert "A data worker died" in caplog.text and "starting the workers again" in caplog.text
  assert working.get_state() == alone.get_state()


def test_workers_that_keep_dying_end_the_run(working, monkeypatch, caplog):
  def dies():
    raise RuntimeError("Worker process was terminated unexpectedly with exit code -9.")
    yield

  monkeypatch.setattr(working, "_start", dies)
  with caplog.at_level(logging.ERROR), pytest.raises(DataError, match=r"died 4 times at batch 0.*--data.workers"):
    next(working)


def test_large_arrays_come_through_shared_memory_where_there_is_enough(working, monkeypatch):
  assert working._smallest_shared(1) == 4096
  monkeypatch.setattr("mmjax.data.loader._SHARED_MEMORY", "/nowhere")
  assert working._smallest_shared(1) == 2**62
