"""A bounded number of open files, to read records from thousands of shards in random order."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_OPEN = 64


class OpenFiles:
  """The MAX_OPEN most recently used files, kept open.

  It is safe for threads. A copy that is pickled to a worker process has no open files.

  Args:
    open_file: opens a path and returns an object to read it.
    close_file: closes such an object.
  """

  def __init__(self, open_file: Callable[[Path], Any], close_file: Callable[[Any], None]):
    self._open, self._close = open_file, close_file
    self._files: OrderedDict[Path, Any] = OrderedDict()
    self._lock = threading.Lock()

  def use(self, path: Path, action: Callable[[Any], Any]) -> Any:
    """Return `action(file)`. The file stays open during the action. Raises OSError if it cannot be opened."""
    with self._lock:
      if path in self._files:
        self._files.move_to_end(path)
      else:
        self._files[path] = self._open(path)
        if len(self._files) > MAX_OPEN:
          self._close(self._files.popitem(last=False)[1])
      return action(self._files[path])

  def close(self) -> None:
    """Close all files. The next use opens them again."""
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
  """Make an `OpenFiles` whose files are file descriptors."""
  return OpenFiles(_descriptor, os.close)


def _descriptor(path: Path) -> int:
  return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
