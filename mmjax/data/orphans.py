"""Worker processes that outlive nobody: kill -9 of a run leaves none behind."""

import multiprocessing
import os
import threading


def end_with_parent(index: int, count: int) -> None:
  """Called in a worker process as it starts: ends it when the process that it works for is gone, however that went.

  Left alone, Grain's workers wait for an order to stop that a process which was killed never gives.
  """
  del index, count
  parent = multiprocessing.parent_process()
  if parent is not None:
    threading.Thread(target=_end_after, args=(parent,), daemon=True, name="end with parent").start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
  parent.join()
  os._exit(1)
