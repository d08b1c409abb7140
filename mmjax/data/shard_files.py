"""Open files, a bounded number of them: thousands of shards are read at random through a few descriptors."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_OPEN = 64


class OpenFiles:
  """Keeps the most recently used files open. Safe for threads; a worker process begins with none.

  Args:
    open_file: path to whatever reads it.
    close_file: ends that.
  """

  def __init__(self, open_file: Callable[[Path], Any], close_file: Callable[[Any], None]):
    self._open, self._close = open_file, close_file
    self._files: OrderedDict[Path, Any] = OrderedDict()
    self._lock = threading.Lock()

  def use(self, path: Path, action: Callable[[Any], Any]) -> Any:
    """`action(file)`, while nobody closes the file. Raises OSError where it cannot be opened."""
    with self._lock:
      if path in self._files:
        self._files.move_to_end(path)
      else:
        self._files[path] = self._open(path)
        if len(self._files) > MAX_OPEN:
          self._close(self._files.popitem(last=False)[1])
      return action(self._files[path])

  def close(self) -> None:
    """Closes all; the next use opens again."""
    with self._lock:
      while self._files:
        self._close(self._files.popitem()[1])

  def __del__(self) -> None:
    self.close()

  def __getstate__(self) -> dict[str, Any]:
    return {"_open": self._open, "_close": self._close}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__init__(state["_open"], state["_close"])  # type: ignore[misc]


def plain_files() -> OpenFiles:
  """Files as descriptors."""
  return OpenFiles(_descriptor, os.close)


def _descriptor(path: Path) -> int:
  return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
