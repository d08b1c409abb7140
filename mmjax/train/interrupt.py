"""Signals that end a run finish the step, save, and then stop; in a group of processes, all after the same step."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Interrupted(BaseException):
  """Breaks off what can be broken off without loss; see `Interrupt.at_once`."""


class Interrupt:
  """Becomes true when the user or the scheduler asks the run to stop; remembers by which signal."""

  def __init__(self) -> None:
    self.signal: int | None = None
    self.breakable = False

  def __bool__(self) -> bool:
    return self.signal is not None

  def reached(self, step: int) -> bool:
    """Whether to stop after `step`; to be asked at every step. All processes of a group get the same answer.

    JAX's preemption service spreads the news of a SIGTERM and agrees on the next step that none has begun.
    """
    if multihost_utils.reached_preemption_sync_point(step):
      self.signal = signal.SIGTERM
    return bool(self)

  @contextlib.contextmanager
  def at_once(self) -> Iterator[None]:
    """While inside, a request to stop raises Interrupted, as it does where there was one before.

    Not in a group of processes: the others would wait for this one.
    """
    self.breakable = not jax.distributed.is_initialized()
    try:
      if self and self.breakable:
        raise Interrupted
      yield
    finally:
      self.breakable = False

  @property
  def exit_status(self) -> int:
    """128 + signal number, as shells and schedulers expect of a stopped process."""
    return 0 if self.signal is None else 128 + self.signal


@contextlib.contextmanager
def graceful_interrupt() -> Iterator[Interrupt]:
  """While inside, the first SIGINT, SIGTERM or SIGUSR1 only marks the Interrupt; a second SIGINT raises at once.

  SIGUSR1 is what SLURM is usually told to send some time before the end (sbatch --signal=USR1@120). In a group of
  processes JAX listens for SIGTERM, from jax.distributed.initialize on; the others count as SIGTERM.

  The bound from signal to exit is what is under way (a step, and another one where a device has it queued; a checkpoint
  that is being written) and one save; waiting for data and evaluations are broken off. A group needs a second more to
  agree on the step, and finishes an evaluation first: give it the time of one more (evaluation.max_examples bounds it).
  """
  interrupt = Interrupt()
  grouped = jax.distributed.is_initialized()
  told = False

  def handle(number: int, frame: FrameType | None) -> None:
    nonlocal told
    if told and number == signal.SIGINT:
      raise KeyboardInterrupt
    told = True
    if grouped:
      os.kill(os.getpid(), signal.SIGTERM)
      return
    interrupt.signal = interrupt.signal or number
    if interrupt.breakable:
      interrupt.breakable = False
      raise Interrupted

  listens = (signal.SIGINT, signal.SIGUSR1) if grouped else (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM)
  before = {number: signal.signal(number, handle) for number in listens}
  try:
    yield interrupt
  finally:
    if grouped:
      before[signal.SIGTERM] = signal.SIG_DFL  # training is over: nobody asks JAX any more
    for number, handler in before.items():
      signal.signal(number, handler)
