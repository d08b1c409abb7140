"""What every term of a loss has in common, and what the terms of one step share."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from mmjax.nn.stochastic import fold_in
from mmjax.objectives.balance import piecewise_linear
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

  @property
  def teacher(self) -> bool:
    """Whether it learns from the moving average of the model (optimizer.ema_decay)."""
    return False

  def chance(self, batch_size: int, model: Any) -> float | None:
    """The loss of a model that knows nothing; None where no closed form is known."""
    return None

  def weight_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
    """Its weight after that many steps."""
    return self.weight * (piecewise_linear(step, self.schedule) if self.schedule else jnp.float32(1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleTerm(Term):
  """A term that looks at one example, or at a few that go through the network together."""

  @property
  def reads(self) -> tuple[str, ...]:
    """Entries of the batch whose encodings it wants; they are made once for all terms."""
    return tuple(name for name in self.needs if name in ("image", "text"))

  @property
  def together(self) -> int:
    """How many consecutive rows must go through the network together on one device."""
    return 1

  def __call__(self, forward: "Forward", taught: Any) -> Scores:
    """Scores of the rows of `forward.batch`; `taught` is what `teach` gave."""
    raise NotImplementedError

  def teach(self, forward: "Forward") -> Any:
    """What the moving average of the model says, arrays [batch, ...]; asked of terms with `teacher`."""
    raise NotImplementedError


class Forward:
  """What the model says of some rows of a batch: each part is computed when a term first asks for it, and once.

  Attributes:
    model: the model, bound to its parameters.
    batch: the rows.
    rng: a key per row for the networks; None, they drop nothing.
    step: optimiser steps taken.
  """

  def __init__(
    self,
    model: Any,
    batch: Batch,
    keys: Key[Array, "batch"],
    step: Int[Array, ""],
    names: tuple[str, ...],
    *,
    training: bool,
  ):
    self.model, self.batch, self.step = model, batch, step
    self.rng = keys if training else None
    self._keys, self._names = keys, names
    self._kept: dict[Any, Any] = {}

  @functools.cached_property
  def encoded(self) -> dict[str, Encoded]:
    """What the towers say of every entry that any term reads."""
    return self.model.encode({name: self.batch[name] for name in self._names}, rng=self.rng)

  @functools.cached_property
  def fused(self) -> dict[str, Encoded]:
    """What image and text say after they read each other."""
    return self.model.fuse(self.encoded["image"], self.encoded["text"], rng=fold_in(self.rng, _FUSION))

  def keys(self, name: str) -> Key[Array, "batch"]:
    """A key per row for what has that name: a function of it, so that another term beside it changes nothing."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(self._keys, 1000 + zlib.crc32(name.encode()) % 2**30)

  def once(self, key: Any, compute: Callable[[], Any]) -> Any:
    """What `compute` gives; terms that ask under the same key share one result."""
    if key not in self._kept:
      self._kept[key] = compute()
    return self._kept[key]


def joint(fused: dict[str, Encoded]) -> Float[Array, "batch width"]:
  """The one vector per example that a fusion gives, whichever modality's tokens it also gives."""
  return next(iter(fused.values())).pooled


def weighted_mean(values: Float[Array, "batch"], weights: Float[Array, "batch"]) -> Float[Array, ""]:
  """The mean over whatever has a weight, 0 where nothing has."""
  total = weights.sum()
  return jnp.where(total > 0, (values * weights).sum() / jnp.where(total > 0, total, 1.0), 0.0)
