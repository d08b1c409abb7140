"""Ctrl-C and SIGTERM finish the step, save, and then stop."""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interrupt:
  """Becomes true when the user or the scheduler asks the run to stop; remembers by which signal."""

  def __init__(self) -> None:
    self.signal: int | None = None

  def __bool__(self) -> bool:
    return self.signal is not None

  @property
  def exit_status(self) -> int:
    """128 + signal number, as shells and schedulers expect of a stopped process."""
    return 0 if self.signal is None else 128 + self.signal


@contextlib.contextmanager
def graceful_interrupt() -> Iterator[Interrupt]:
  """While inside, the first SIGINT or SIGTERM only marks the Interrupt; a second SIGINT raises at once."""
  interrupt = Interrupt()

  def handle(number: int, frame: FrameType | None) -> None:
    if interrupt and number == signal.SIGINT:
      raise KeyboardInterrupt
    interrupt.signal = number

  before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    yield interrupt
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
