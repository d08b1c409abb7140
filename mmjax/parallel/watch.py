"""What becomes of a group of processes when one of them is gone: the others say which, and stop.

Left to itself, jax.distributed aborts the others after its heartbeat timeout, under a page of C++ frames; and it lets
them hang for its five minutes of shutdown timeout where one process ended in an exception and waits for the others.
"""

import contextlib
import multiprocessing
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import jax

DEAD_AFTER = "MMJAX_DEAD_AFTER_SECONDS"
STOPPED = 75
"""The exit status of a process whose group has lost another: EX_TEMPFAIL, start the group again."""

_BEATS, _VERDICT, _DONE = "mmjax/beat/", "mmjax/verdict/", "done"
# How a collective says that the other end of a connection is no longer there: in a JaxRuntimeError, or a ValueError.
_LOST = ("Gloo ", "NCCL ", "Connection closed by peer", "Connection reset by peer", "Socket closed", "heartbeat")


def dead_after(environment: Mapping[str, str]) -> float:
  """Seconds without a sign of life after which a process counts as gone: $MMJAX_DEAD_AFTER_SECONDS, or 60."""
  text = environment.get(DEAD_AFTER, "60")
  try:
    seconds = float(text)
  except ValueError:
    seconds = -1.0
  if not 1 <= seconds < float("inf"):
    raise ValueError(f"the environment variable {DEAD_AFTER} is {text!r}: expected a number of seconds, at least 1")
  return seconds


class GroupWatch:
  """A thread that shows the others that this process lives, and ends it when the group has lost one.

  Every process writes a counter to the coordinator's key-value store; process 0 reads them all, and whoever finds
  a process gone, or goes because of an error, leaves the reason there as the verdict, which all processes look for.

  Args:
    client: of the coordination service, as jax.distributed made it.
    index: of this process; count: of how many.
    seconds: without a new beat after which a process is gone.
    leave: ends this process at once, whatever its other threads wait for.
  """

  def __init__(self, client: Any, index: int, count: int, seconds: float, leave: Callable[[int], Any] | None = None):
    self._client, self._index, self._seconds, self._leave = client, index, seconds, leave or _leave
    self._period = min(1.0, seconds / 5)
    self._me = f"on {socket.gethostname()}, pid {os.getpid()}"
    self._beats = 0
    # Process 0 only: each process's last beat, and when it was first seen here.
    self._seen = {str(i): ("0 never heard of", time.monotonic()) for i in range(count)}
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True, name="group-watch")

  def start(self) -> None:
    self._thread.start()

  def finish(self) -> None:
    """This process is done and goes in good order; nobody is to miss it."""
    self._end()
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the coordinator may have finished first
      self._client.key_value_set(f"{_BEATS}{self._index}", _DONE, allow_overwrite=True)

  def fail(self, error: BaseException) -> NoReturn:
    """This process goes because of an error: the others are told why. Skips the wait for them at exit."""
    status, cause = _status(error), error
    if isinstance(error, SystemExit):  # said already; what it was about is in its context
      cause = error.__context__ or error
    else:
      traceback.print_exception(error)
    if any(words in str(cause) for words in _LOST):
      time.sleep(self._seconds + 4 * self._period)  # another one is gone: the thread finds out which, and ends this
    self._end()
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self.tell(f"process {self._index} ({self._me}) stopped: {type(cause).__name__}: {str(cause)[:1000]}")
    if self._index == 0:
      time.sleep(3 * self._period)  # the verdict is kept in this process; the others need a moment to read it
    self._leave(status)
    raise AssertionError("unreachable")

  def tell(self, why: str) -> None:
    """Leaves the verdict, which ends every other process of the group."""
    self._client.key_value_set(f"{_VERDICT}{self._index}", why, allow_overwrite=True)

  def _end(self) -> None:
    self._ended.set()
    if self._thread.is_alive():
      self._thread.join()

  def _run(self) -> None:
    while not self._ended.is_set():
      try:
        self._beat()
        verdict = [why for _, why in self._client.key_value_dir_get(_VERDICT)]
      except jax.errors.JaxRuntimeError:
        verdict = ["process 0, which keeps the group together, is gone"]
      if verdict and not self._ended.is_set():
        return self._stop(verdict[0])
      self._ended.wait(self._period)

  def _beat(self) -> None:
    self._beats += 1
    self._client.key_value_set(f"{_BEATS}{self._index}", f"{self._beats} {self._me}", allow_overwrite=True)
    if self._index == 0:
      lost = self._silent(self._client.key_value_dir_get(_BEATS), time.monotonic())
      if lost is not None:
        self.tell(lost)

  def _silent(self, beats: list[tuple[str, str]], now: float) -> str | None:
    """Which process has been silent for too long, in words."""
    for key, beat in beats:
      index = key.removeprefix(_BEATS)
      if self._seen[index][0] != beat:
        self._seen[index] = beat, now
    for index, (beat, since) in self._seen.items():
      if beat != _DONE and now - since > self._seconds:
        return f"process {index} ({beat.partition(' ')[2]}) has given no sign of life for {self._seconds:g} s"
    return None

  def _stop(self, verdict: str) -> None:
    print(
      f"error: {verdict}. Process {self._index} stops with status {STOPPED}: the group cannot go on without it. Look "
      "at that process's own output, then start the whole group again: it resumes from its newest checkpoint.",
      file=sys.stderr,
    )
    self._leave(STOPPED)


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[None]:
  """Inside, a process of the group that dies or fails ends them all, with its name; alone, this does nothing."""
  from jax._src import distributed  # the client has no public name; Orbax takes it from here as well

  state = distributed.global_state
  if state.client is None:
    yield
    return
  watch = GroupWatch(state.client, state.process_id, state.num_processes, seconds)
  watch.start()
  try:
    yield
  except BaseException as error:
    watch.fail(error)
  watch.finish()


def _leave(status: int) -> None:
  """Ends this process and its data workers, without the exit handlers: those would wait for the others."""
  for child in multiprocessing.active_children():
    child.kill()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def _status(error: BaseException) -> int:
  if isinstance(error, SystemExit):
    return error.code if isinstance(error.code, int) else 1
  return 130 if isinstance(error, KeyboardInterrupt) else 1
