"""Watch over a group of processes: if one is lost, the others report which one, and stop.

Without it, jax.distributed aborts the others after its heartbeat timeout, with a page of C++ frames. If a process ends
in an exception, jax.distributed makes it wait for the others until its shutdown timeout of five minutes, while they
hang.
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
"""Exit status of a process whose group has lost another process: EX_TEMPFAIL, start the group again."""

_BEATS, _VERDICT, _DONE = "mmjax/beat/", "mmjax/verdict/", "done"
# Words in the error (JaxRuntimeError or ValueError) of a collective whose connection to another process is lost.
_LOST = ("Gloo ", "NCCL ", "Connection closed by peer", "Connection reset by peer", "Socket closed", "heartbeat")


def dead_after(environment: Mapping[str, str]) -> float:
  """Seconds without a heartbeat after which a process counts as lost: $MMJAX_DEAD_AFTER_SECONDS, or 60.

  Raises:
    ValueError: the variable is not a number of at least 1.
  """
  text = environment.get(DEAD_AFTER, "60")
  try:
    seconds = float(text)
  except ValueError:
    seconds = -1.0
  if not 1 <= seconds < float("inf"):
    raise ValueError(f"the environment variable {DEAD_AFTER} is {text!r}: expected a number of seconds, at least 1")
  return seconds


class GroupWatch:
  """Thread that sends this process's heartbeats, and ends this process if the group has lost another one.

  Every process writes a counter to the coordinator's key-value store, and process 0 reads all counters. A process that
  finds another one lost, or that stops because of an error, writes the reason to the store as the verdict. All
  processes look for a verdict.

  Args:
    client: client of the coordination service, as jax.distributed made it.
    index: index of this process.
    count: number of processes.
    seconds: time without a new heartbeat after which a process counts as lost.
    leave: ends this process immediately, whatever its other threads wait for; None: `os._exit` after the data workers
      are killed.
  """

  def __init__(self, client: Any, index: int, count: int, seconds: float, leave: Callable[[int], Any] | None = None):
    self._client, self._index, self._seconds, self._leave = client, index, seconds, leave or _leave
    self._period = min(1.0, seconds / 5)
    self._me = f"on {socket.gethostname()}, pid {os.getpid()}"
    self._beats = 0
    # Process 0 only: the last heartbeat of each process, and the time when it was first seen here.
    self._seen = {str(i): ("0 never heard of", time.monotonic()) for i in range(count)}
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True, name="group-watch")

  def start(self) -> None:
    """Starts the thread."""
    self._thread.start()

  def finish(self) -> None:
    """Ends the watch of a process that has finished normally, so that the others do not count it as lost."""
    self._end()
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the coordinator may have finished first
      self._client.key_value_set(f"{_BEATS}{self._index}", _DONE, allow_overwrite=True)

  def fail(self, error: BaseException) -> NoReturn:
    """Ends this process because of an error, and tells the others the reason. It skips the wait for them at exit."""
    status, cause = _status(error), error
    if isinstance(error, SystemExit):  # already reported; the cause is in its context
      cause = error.__context__ or error
    else:
      traceback.print_exception(error)
    if any(words in str(cause) for words in _LOST):
      time.sleep(self._seconds + 4 * self._period)  # another process is lost: the thread finds it and ends this one
    self._end()
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self.tell(f"process {self._index} ({self._me}) stopped: {type(cause).__name__}: {str(cause)[:1000]}")
    if self._index == 0:
      time.sleep(3 * self._period)  # this process holds the verdict, and the others need time to read it
    self._leave(status)
    raise AssertionError("unreachable")

  def tell(self, why: str) -> None:
    """Writes the verdict, which ends every other process of the group."""
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
        verdict = ["process 0, which runs the group's coordinator, is lost"]
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
    """Message about the first process without a heartbeat for too long; None if there is no such process."""
    for key, beat in beats:
      index = key.removeprefix(_BEATS)
      if self._seen[index][0] != beat:
        self._seen[index] = beat, now
    for index, (beat, since) in self._seen.items():
      if beat != _DONE and now - since > self._seconds:
        return f"process {index} ({beat.partition(' ')[2]}) has sent no heartbeat for {self._seconds:g} s"
    return None

  def _stop(self, verdict: str) -> None:
    print(
      f"error: {verdict}. Process {self._index} stops with status {STOPPED}: the group cannot continue without it. "
      "Look at that process's own output, then start the whole group again: it resumes from its newest checkpoint.",
      file=sys.stderr,
    )
    self._leave(STOPPED)


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[None]:
  """Context in which a process of the group that dies or fails ends all others, with a message that names it.

  Does nothing for a single process.
  """
  from jax._src import distributed  # the client has no public name; Orbax imports it from here as well

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
  """Ends this process and its data workers without exit handlers, because these would wait for the other processes."""
  for child in multiprocessing.active_children():
    child.kill()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def _status(error: BaseException) -> int:
  if isinstance(error, SystemExit):
    return error.code if isinstance(error.code, int) else 1
  return 130 if isinstance(error, KeyboardInterrupt) else 1
