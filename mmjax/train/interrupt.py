"""Handling of signals: the run finishes the step, saves and stops. A group of processes stops after the same step."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Interrupted(BaseException):
  """Raised to end work that can be repeated. See `Interrupt.at_once`."""


class Interrupt:
  """True after the user or the scheduler asked the run to stop. Stores the signal."""

  def __init__(self) -> None:
    self.signal: int | None = None
    self.breakable = False

  def __bool__(self) -> bool:
    return self.signal is not None

  def reached(self, step: int) -> bool:
    """True if the run must stop after `step`. Call it at every step. All processes of a group get the same answer.

    JAX's preemption service tells all processes of a SIGTERM, and chooses the next step that none of them has begun.
    """
    if multihost_utils.reached_preemption_sync_point(step):
      self.signal = signal.SIGTERM
    return bool(self)

  @contextlib.contextmanager
  def at_once(self) -> Iterator[None]:
    """Context in which a request to stop raises Interrupted. An earlier request raises it on entry.

    In a group of processes it does nothing, because the other processes would wait for this one.
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
    """128 + signal number, as shells and schedulers expect from a stopped process. 0 without a signal."""
    return 0 if self.signal is None else 128 + self.signal


@contextlib.contextmanager
def graceful_interrupt() -> Iterator[Interrupt]:
  """Context in which the first SIGINT, SIGTERM or SIGUSR1 only marks the Interrupt. A second SIGINT raises at once.

  SLURM is usually told to send SIGUSR1 some time before the end of a job (sbatch --signal=USR1@120). In a group of
  processes, JAX handles SIGTERM after jax.distributed.initialize. The other signals are then handled as SIGTERM.

  The time from the signal to the exit is at most that of the current work (a step, a second step if a device has it
  queued, and a checkpoint that is being written) plus one save. Waiting for data and evaluations are interrupted. A
  group needs one more second to agree on the step, and it finishes a running evaluation (evaluation.max_examples limits
  its time).
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
      before[signal.SIGTERM] = signal.SIG_DFL  # after training, nothing asks JAX's preemption service
    for number, handler in before.items():
      signal.signal(number, handler)
