"""Reaction to a step whose loss is wrong: the run stops, skips the update, or goes back to a checkpoint."""

from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from mmjax.errors import UserError
from mmjax.settings import NumericsConfig

Action = Literal["apply", "log", "skip", "rollback", "stop"]


class NotFiniteError(UserError, FloatingPointError):
  """The loss or a gradient is NaN or infinite. The message names the step and the first bad parameter."""


class LossSpikeError(UserError):
  """The loss jumped. The message names the step and the losses."""


def no_losses(config: NumericsConfig) -> Float[Array, "window"]:
  """Make the recent losses of a state before the first step: NaN."""
  return jnp.full((config.spike_window,), jnp.nan, jnp.float32)


def judge(
  config: NumericsConfig, loss: Float[Array, ""], grad_norm: Float[Array, ""], recent: Float[Array, "window"]
) -> tuple[Bool[Array, ""], Float[Array, "window"], dict[str, Array]]:
  """Decide in the compiled step if the update is made.

  The loss is that of the global batch. It is the same on every device and in every process, and so is the decision.

  Args:
    config: the settings.
    loss: loss of the step.
    grad_norm: global norm of its gradient.
    recent: losses of the last steps with an update.
  Returns: (True if the update is made, recent losses with this one, {"spike": ..., "usual_loss": ...} for the loop).
  """
  usual = jnp.median(recent)  # NaN until the window is full; no loss exceeds NaN
  finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
  spike = finite & (loss - usual > (config.spike_factor - 1) * jnp.abs(usual))
  applied = finite if config.on_spike == "log" else finite & ~spike
  return applied, jnp.append(recent[1:], loss.astype(jnp.float32)), {"spike": spike, "usual_loss": usual}


class Policy:
  """Counts wrong steps, and decides the reaction to each.

  Args:
    config: the settings.
    saved: `state` that was saved with the checkpoint from which the run resumes. Empty for a new run.
  """

  def __init__(self, config: NumericsConfig, saved: Mapping[str, int]):
    self._config = config
    self.skips, self.rollbacks = saved.get("skips", 0), saved.get("rollbacks", 0)

  @property
  def state(self) -> dict[str, int]:
    return {"skips": self.skips, "rollbacks": self.rollbacks}

  def decide(self, *, finite: bool, spike: bool) -> Action:
    """Return the reaction to a step. It is "stop" if more updates were skipped or rolled back than allowed."""
    action: Action = self._config.on_not_finite if not finite else self._config.on_spike if spike else "apply"
    self.skips = self.skips + 1 if action == "skip" else 0
    self.rollbacks += action == "rollback"
    if self.skips > self._config.max_skips or self.rollbacks > self._config.max_rollbacks:
      return "stop"
    return action

  @property
  def exhausted(self) -> str:
    """Reason why the run stops although the settings ask for skips or rollbacks. Empty if they do not."""
    if self.skips > self._config.max_skips:
      return f"; {self._config.max_skips} updates (numerics.max_skips) were skipped in a row before it"
    if self.rollbacks > self._config.max_rollbacks:
      return f"; the run went back {self._config.max_rollbacks} times (numerics.max_rollbacks) before it"
    return ""
