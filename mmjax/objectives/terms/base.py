"""The base of all terms of a loss, and what they are given."""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int, Key

from mmjax.kinds import Kind
from mmjax.nn.stochastic import fold_in
from mmjax.objectives.balance import piecewise_linear
from mmjax.types import Batch, Encoded

Scores = Mapping[str, tuple[Float[Array, "batch"], Float[Array, "batch"]]]
"""Values per example and their weights, by name: "loss", and any other number to log ("accuracy"). The weight is 0
where an example has no such value (no masked word, no answer)."""

AVERAGE = "average"
"""The teacher that is the moving average of the model itself (optimizer.ema_decay)."""

_FUSION = 999  # the fusion's stream of random numbers; towers and their views have small numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term(Kind):
  """One weighted term of the loss. Subclasses are ExampleTerm, BatchTerm, or both at once."""

  weight: float = 1.0
  """Factor of the term in the sum over objectives."""
  schedule: tuple[tuple[int, float], ...] = ()
  """(step, factor) pairs. The weight is multiplied by the factor: linear between the pairs, constant outside them."""
  moves: tuple[str, ...] = ()
  """Expressions of the parameter paths that get a gradient from this term; empty: all parameters do."""

  def __post_init__(self) -> None:
    steps = [step for step, _ in self.schedule]
    if steps != sorted(set(steps)):
      raise ValueError(f"the schedule of {self.name} must have rising steps, got {steps}")

  @property
  def name(self) -> str:
    """The name of the term in the log. The terms of one run have different names."""
    raise NotImplementedError

  @property
  def needs(self) -> tuple[str, ...]:
    """Names of the arrays of a batch that the term reads."""
    raise NotImplementedError

  @property
  def asks(self) -> tuple[type, ...]:
    """The protocols of mmjax.models.protocols that the model must satisfy."""
    return ()

  @property
  def teacher(self) -> str | None:
    """The model that the term learns from: AVERAGE, the workdir or file of a frozen one, or None."""
    return None

  @property
  def needs_bias(self) -> bool:
    """True if the model must have a logit bias (model.init_logit_bias)."""
    return False

  @property
  def special_tokens(self) -> tuple[str, ...]:
    """The special tokens that the tokenizer must have, of "mask" and "begin"."""
    return ()

  @property
  def compares(self) -> bool:
    """True if the term trains embeddings to be compared by their cosine: retrieval can be evaluated."""
    return False

  def chance(self, batch_size: int, model: Any) -> float | None:
    """The loss of a model that knows nothing; None where no closed form is known."""
    return None

  def fitted(self, *, num_records: int) -> "Term":
    """The term for training data of this many records. Called before the first step."""
    return self

  def weight_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
    """The weight after this many steps."""
    return self.weight * (piecewise_linear(step, self.schedule) if self.schedule else jnp.float32(1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleTerm(Term):
  """A term over rows: it sees one example, or a few that go through the network together."""

  @property
  def reads(self) -> tuple[str, ...]:
    """Arrays of the batch whose encodings the term uses. They are made once for all terms."""
    return tuple(name for name in self.needs if name in ("image", "text"))

  @property
  def together(self) -> int:
    """Number of consecutive rows that must go through the network together on one device."""
    return 1

  def over_rows(self, forward: "Forward", taught: Any) -> Scores:
    """Scores of the rows of `forward.batch`. `taught` is the result of `teach`."""
    raise NotImplementedError

  def teach(self, forward: "Forward") -> Any:
    """What the teacher says: arrays [batch, ...]. Asked of terms with a teacher."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchTerm(Term):
  """A term over the whole global batch: it compares the unit-norm embeddings of all examples.

  Attributes:
    between: names of the two arrays of a batch whose embeddings are compared.
  """

  between: tuple[str, str] = ("image", "text")
  """The two embeddings that are compared, by name: image, text, or image2 (the second view of data.views=2)."""

  @property
  def compares(self) -> bool:
    return True

  def memory(self, embed_dim: int) -> Any:
    """What the term keeps from step to step, as it is before the first one; None: nothing."""
    return None

  def over_batch(self, whole: "Whole") -> tuple[Float[Array, ""], Any]:
    """Returns (the unweighted loss over the global batch, the memory after this step)."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Whole:
  """What a BatchTerm is given.

  Attributes:
    embeddings: unit-norm float32 embeddings [global batch, dim] by name, sharded over `axes` of `mesh`.
    taught: the same of the term's teacher; empty without one.
    batch: the arrays that they were made from.
    memory: what the term kept.
    step: optimiser steps taken.
    logit_scale: similarities are multiplied by it.
    logit_bias: added to the logits; 0 for a model that has none.
    taught_scale: the teacher's logit_scale.
    mesh, axes: where the arrays lie: the batch is split over these axes of the mesh.
  """

  embeddings: Mapping[str, Float[Array, "batch dim"]]
  taught: Mapping[str, Float[Array, "batch dim"]]
  batch: Batch
  memory: Any
  step: Int[Array, ""]
  logit_scale: Float[Array, ""]
  logit_bias: Float[Array, ""]
  taught_scale: Float[Array, ""]
  mesh: Mesh
  axes: tuple[str, ...]


class Forward:
  """The outputs of a model for some rows of a batch. Each is computed when a term first asks for it, and once.

  Attributes:
    model: the model, bound to its parameters.
    batch: the rows.
    rng: a key per row for the networks; None: nothing is dropped.
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
    """Encodings of every array of the batch that any term reads."""
    return self.model.encode({name: self.batch[name] for name in self._names}, rng=self.rng)

  @functools.cached_property
  def fused(self) -> dict[str, Encoded]:
    """Image and text after they have read each other."""
    return self.model.fuse(self.encoded["image"], self.encoded["text"], rng=fold_in(self.rng, _FUSION))

  def keys(self, name: str) -> Key[Array, "batch"]:
    """A key per row, a function of the name: another term beside it changes nothing."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(self._keys, 1000 + zlib.crc32(name.encode()) % 2**30)

  def once(self, key: Any, compute: Callable[[], Any]) -> Any:
    """The result of `compute`. Terms that ask under the same key share one result."""
    if key not in self._kept:
      self._kept[key] = compute()
    return self._kept[key]


def joint(fused: dict[str, Encoded]) -> Float[Array, "batch width"]:
  """The one vector per example that a fusion gives, whichever modality's tokens it gives as well."""
  return next(iter(fused.values())).pooled


def weighted_mean(values: Float[Array, "batch"], weights: Float[Array, "batch"]) -> Float[Array, ""]:
  """The weighted mean; 0 where all weights are 0."""
  total = weights.sum()
  return jnp.where(total > 0, (values * weights).sum() / jnp.where(total > 0, total, 1.0), 0.0)
