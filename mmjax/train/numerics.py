"""What becomes of a step whose numbers are wrong: the run stops, the update is skipped, or the run goes back."""

from collections.abc import Mapping
from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from mmjax.errors import UserError
from mmjax.train.config import NumericsConfig

Action = Literal["apply", "log", "skip", "rollback", "stop"]


class NotFiniteError(UserError, FloatingPointError):
  """The loss or a gradient became NaN or infinite; the message names the step and the first bad parameter."""


class LossSpikeError(UserError):
  """The loss jumped; the message names the step, and by how much."""


def no_losses(config: NumericsConfig) -> Float[Array, "window"]:
  """What a state remembers of its losses before the first step."""
  return jnp.full((config.spike_window,), jnp.nan, jnp.float32)


def judge(
  config: NumericsConfig, loss: Float[Array, ""], grad_norm: Float[Array, ""], recent: Float[Array, "window"]
) -> tuple[Bool[Array, ""], Float[Array, "window"], dict[str, Array]]:
  """Whether to make the update; the losses to remember with it; what the loop wants to know ("spike", "usual_loss").

  The loss is the global batch's, the same on every device and in every process, and so is what is decided.
  """
  usual = jnp.median(recent)  # NaN, which nothing exceeds, until the window is full
  finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
  spike = finite & (loss - usual > (config.spike_factor - 1) * jnp.abs(usual))
  applied = finite if config.on_spike == "log" else finite & ~spike
  return applied, jnp.append(recent[1:], loss.astype(jnp.float32)), {"spike": spike, "usual_loss": usual}


class Policy:
  """Counts what went wrong, and says what to do about the next step that does.

  Args:
    config: what the user wants.
    saved: `state` of the run that this one goes on with.
  """

  def __init__(self, config: NumericsConfig, saved: Mapping[str, int]):
    self._config = config
    self.skips, self.rollbacks = saved.get("skips", 0), saved.get("rollbacks", 0)

  @property
  def state(self) -> dict[str, int]:
    return {"skips": self.skips, "rollbacks": self.rollbacks}

  def decide(self, *, finite: bool, spike: bool) -> Action:
    """What becomes of a step: of how many were skipped or rolled back, the one too many is "stop"."""
    action: Action = self._config.on_not_finite if not finite else self._config.on_spike if spike else "apply"
    self.skips = self.skips + 1 if action == "skip" else 0
    self.rollbacks += action == "rollback"
    if self.skips > self._config.max_skips or self.rollbacks > self._config.max_rollbacks:
      return "stop"
    return action

  @property
  def exhausted(self) -> str:
    """Why a "stop" is one where the user wanted something milder; empty where he wanted none."""
    if self.skips > self._config.max_skips:
      return f"; {self._config.max_skips} updates (numerics.max_skips) were skipped in a row before it"
    if self.rollbacks > self._config.max_rollbacks:
      return f"; the run went back {self._config.max_rollbacks} times (numerics.max_rollbacks) before it"
    return ""
