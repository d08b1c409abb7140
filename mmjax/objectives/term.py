"""What every term of a loss has in common, and what the terms of one step share."""

import dataclasses
import functools
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.types import Batch, Encoded

Scores = Mapping[str, tuple[Float[Array, "batch"], Float[Array, "batch"]]]
"""Values per example and their weights, by name: "loss", and whatever else is worth logging ("accuracy"). A weight is 0
where an example has nothing to say (no masked word, no answer)."""

_FUSION = 999  # the fusion's stream of randomness; towers and their views have small numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
  """One weighted term of the loss."""

  weight: float = 1.0
  """What the loss is multiplied by in the sum over objectives."""
  schedule: tuple[tuple[int, float], ...] = ()
  """(step, factor) pairs: the weight is multiplied by the factor, linear between the pairs, constant outside them."""

  teacher: ClassVar[bool] = False
  """Whether it learns from the moving average of the model (optimizer.ema_decay)."""

  def __post_init__(self) -> None:
    steps = [step for step, _ in self.schedule]
    if steps != sorted(set(steps)):
      raise ValueError(f"the schedule of {self.name} must have rising steps, got {steps}")

  @property
  def name(self) -> str:
    """What the log calls it; terms of one run have different names."""
    raise NotImplementedError

  @property
  def needs(self) -> tuple[str, ...]:
    """Names of what it reads from a batch."""
    raise NotImplementedError

  def chance(self, batch_size: int, model: Any) -> float | None:
    """The loss of a model that knows nothing; None where no closed form is known."""
    return None

  def weight_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
    """Its weight after that many steps."""
    if not self.schedule:
      return jnp.float32(self.weight)
    steps, factors = (jnp.asarray(column, jnp.float32) for column in zip(*self.schedule, strict=True))
    return self.weight * jnp.interp(step.astype(jnp.float32), steps, factors)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerExample(Term):
  """A term that looks at one example, or at a few that go through the network together."""

  @property
  def reads(self) -> tuple[str, ...]:
    """Entries of the batch whose encodings it wants; they are made once for all terms."""
    return tuple(name for name in self.needs if name in ("image", "text"))

  @property
  def together(self) -> int:
    """How many consecutive rows must go through the network together on one device."""
    return 1

  def __call__(self, forward: "Forward", rng: Rngs, taught: Any) -> Scores:
    """Scores of the rows of `forward.batch`; `rng` is the term's own; `taught` is what `teach` gave."""
    raise NotImplementedError

  def teach(self, forward: "Forward", rng: Rngs) -> Any:
    """What the moving average of the model says, arrays [batch, ...]; asked of terms with `teacher`."""
    raise NotImplementedError


class Forward:
  """What the model says of some rows of a batch: each part is computed when a term first asks for it, and once.

  Attributes:
    model: the model, bound to its parameters.
    batch: the rows.
    rng: a key per row; None switches randomness off.
  """

  def __init__(self, model: Any, batch: Batch, rng: Rngs, names: tuple[str, ...]):
    self.model, self.batch, self.rng, self._names = model, batch, rng, names

  @functools.cached_property
  def encoded(self) -> dict[str, Encoded]:
    """What the towers say of every entry that any term reads."""
    return self.model.encode({name: self.batch[name] for name in self._names}, rng=self.rng)

  @functools.cached_property
  def fused(self) -> dict[str, Encoded]:
    """What image and text say after they read each other."""
    return self.model.fuse(self.encoded["image"], self.encoded["text"], rng=fold_in(self.rng, _FUSION))


def joint(fused: dict[str, Encoded]) -> Float[Array, "batch width"]:
  """The one vector per example that a fusion gives, whichever modality's tokens it also gives."""
  return next(iter(fused.values())).pooled


def term_rng(rng: Rngs, name: str) -> Rngs:
  """A term's own key per example, a function of its name: another term beside it changes nothing."""
  return fold_in(rng, 1000 + zlib.crc32(name.encode()) % 2**30)


def weighted_mean(values: Float[Array, "batch"], weights: Float[Array, "batch"]) -> Float[Array, ""]:
  """The mean over whatever has a weight, 0 where nothing has."""
  total = weights.sum()
  return jnp.where(total > 0, (values * weights).sum() / jnp.where(total > 0, total, 1.0), 0.0)
