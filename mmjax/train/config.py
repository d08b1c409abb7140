"""Every --optimizer.* and --numerics.* setting."""

import dataclasses
from typing import Literal

Algorithm = Literal["adam", "lion", "adafactor", "muon", "momentum"]
Schedule = Literal["cosine", "rsqrt", "constant"]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Optimiser, schedule and per-parameter rules."""

  algorithm: Algorithm = "adam"
  """Update rule; decoupled weight decay is added to each of them (adam + weight_decay is AdamW)."""
  learning_rate: float = 1e-3
  """Peak learning rate."""
  schedule: Schedule = "cosine"
  """Shape after the linear warm-up: cosine to zero, or rsqrt / constant with a linear cooldown."""
  warmup_steps: int = 100
  """Steps of linear warm-up; with cooldown_steps at most half of run.steps, shortened where that is less."""
  cooldown_steps: int = 0
  """Steps of linear decrease to zero at the end (rsqrt and constant)."""
  b1: float = 0.9
  """Decay of the first moment (adam, lion), or of the momentum (momentum, muon)."""
  b2: float = 0.98
  """Decay of the second moment (adam, lion)."""
  epsilon: float = 1e-6
  """Added to the denominator (adam)."""
  weight_decay: float = 0.2
  """Decoupled weight decay, times the learning rate and the multiplier that weight_decay_rules give."""
  clip_norm: float = 1.0
  """Largest global gradient norm; longer gradients are scaled down to it. 0 clips nothing."""
  ema_decay: float = 0.0
  """Decay of the moving average of the parameters, which evaluation then uses; 0 keeps none."""
  learning_rate_rules: tuple[tuple[str, float], ...] = ((".*", 1.0),)
  """Ordered (path expression, multiplier of the learning rate)."""
  weight_decay_rules: tuple[tuple[str, float], ...] = (
    ("(kernel|embedding)$", 1.0),
    (".*", 0.0),
  )
  """Ordered (path expression, multiplier of the weight decay)."""
  frozen: tuple[str, ...] = ()
  """Path expressions of parameters that are not trained: no gradient, no optimiser state, no decay."""

  def __post_init__(self):
    for name in ("learning_rate", "weight_decay", "clip_norm", "warmup_steps", "cooldown_steps"):
      if getattr(self, name) < 0:
        raise ValueError(f"optimizer.{name} is {getattr(self, name)}: it must not be negative")
    for name in ("b1", "b2", "ema_decay"):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(f"optimizer.{name} is {getattr(self, name)}: it must lie in [0, 1)")


@dataclasses.dataclass(frozen=True)
class NumericsConfig:
  """What happens when a loss or a gradient is not finite, or the loss jumps. Every event is a line of events.jsonl."""

  on_not_finite: Literal["stop", "skip", "rollback"] = "stop"
  """stop; skip this batch's update; rollback: take up the last checkpoint and go on with the data after this batch."""
  on_spike: Literal["log", "stop", "skip", "rollback"] = "log"
  """The same for a loss that jumps; log: the update is made all the same."""
  spike_factor: float = 3.0
  """A jump is a loss this many times the median of the last spike_window losses."""
  spike_window: int = 100
  """Losses that the median is taken over; before there are so many, nothing is a jump."""
  max_skips: int = 10
  """Updates skipped in a row; one more stops the run."""
  max_rollbacks: int = 3
  """Rollbacks in a run; one more stops it."""

  def __post_init__(self):
    if self.spike_factor <= 1:
      raise ValueError(f"numerics.spike_factor is {self.spike_factor}: it must be more than 1")
    for name, least in (("spike_window", 2), ("max_skips", 1), ("max_rollbacks", 1)):
      if getattr(self, name) < least:
        raise ValueError(f"numerics.{name} is {getattr(self, name)}: it must be at least {least}")
