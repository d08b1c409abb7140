"""End of worker processes with their parent, so that `kill -9` of a run leaves no process behind."""

import multiprocessing
import os
import threading


def end_with_parent(index: int, count: int) -> None:
  """Start a thread in a worker process that ends the process when its parent has ended for any reason.

  Grain calls this function in each worker at its start. Otherwise, workers of a killed process would wait forever for
  its signal to stop. Both arguments are ignored.
  """
  del index, count
  parent = multiprocessing.parent_process()
  if parent is not None:
    threading.Thread(target=_end_after, args=(parent,), daemon=True, name="end with parent").start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
  parent.join()
  os._exit(1)
