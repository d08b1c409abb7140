"""Measurement of throughput and of the time that steps wait for data."""

import time


class Clock:
  """Throughput and input wait since the last log line."""

  def __init__(self, batch_size: int):
    self._batch_size = batch_size
    self._began = time.monotonic()
    self._reset()

  def step(self, waited: float) -> None:
    """Count a step that waited this many seconds for its batch."""
    self._steps += 1
    self._waited += waited

  def exclude(self, seconds: float) -> None:
    """Exclude time from the throughput, such as that of an evaluation."""
    self._since += seconds

  def numbers(self) -> dict[str, float]:
    elapsed = max(time.monotonic() - self._since, 1e-9)
    steps = max(self._steps, 1)
    numbers = {
      "examples_per_second": self._steps * self._batch_size / elapsed,
      "input_wait": self._waited / steps,
      "input_wait_share": min(self._waited / elapsed, 1.0),
      "seconds": time.monotonic() - self._began,
    }
    self._reset()
    return numbers

  def _reset(self) -> None:
    self._steps, self._waited, self._since = 0, 0.0, time.monotonic()
