"""Base classes of loss terms, and the inputs of the terms."""

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

from mmjax.kinds import Kind, undefined
from mmjax.models.protocols import Compares, Encodes
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.objectives.losses.balance import piecewise_linear
from mmjax.types import Batch, Encoded

Scores = Mapping[str, tuple[Float[Array, "batch"], Float[Array, "batch"]]]
"""Values per example and their weights, by name: "loss", and other metrics to log, such as "accuracy". The weight is 0
if an example has no value, for example no masked word or no answer."""

AVERAGE = "average"
"""Name of the teacher that is the moving average of the model (optimizer.ema_decay)."""

_FUSION = 999  # number of the fusion's random stream; towers and their views have small numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term(Kind):
  """One weighted term of the loss. A term inherits from ExampleTerm, from BatchTerm, or from both.

  Its loss is then the sum of the two parts.

  Example:
    >>> import dataclasses
    >>> import jax.numpy as jnp
    >>> from mmjax.objectives import BatchTerm
    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Apart(BatchTerm):
    ...   name, needs = "apart", ("image", "text")
    ...
    ...   def over_batch(self, whole):
    ...     distance = whole.embeddings["image"] - whole.embeddings["text"]
    ...     return jnp.square(distance).sum(-1).mean(), None
    >>> Apart(weight=0.5).key
    'apart'
  """

  weight: float = 1.0
  """Weight of the term in the sum."""
  schedule: tuple[tuple[int, float], ...] = ()
  """(step, factor) pairs. The weight is multiplied by the factor: linear between the steps, constant outside them."""
  moves: tuple[str, ...] = ()
  """Regular expressions of the paths of parameters that get a gradient from this term. Empty: all parameters."""
  stream: str = ""
  """Name of the stream whose rows the term reads (data.streams). Empty: the rows of data.source."""

  def __post_init__(self) -> None:
    steps = [step for step, _ in self.schedule]
    if steps != sorted(set(steps)):
      raise ValueError(f"the schedule of {self.name} must have rising steps, got {steps}")

  @property
  def name(self) -> str:
    """Name of the term among those of its stream. The terms of a stream must have different names."""
    raise undefined(self, "name")

  @property
  def key(self) -> str:
    """Name of the term in the log: STREAM_NAME, or only the name for the rows of data.source."""
    return f"{self.stream}_{self.name}" if self.stream else self.name

  @property
  def needs(self) -> tuple[str, ...]:
    """Names of the arrays in a batch that the term reads."""
    raise undefined(self, "needs")

  @property
  def asks(self) -> tuple[type, ...]:
    """Protocols of mmjax.models.protocols that the model must satisfy."""
    return ()

  @property
  def teacher(self) -> str | None:
    """Teacher of the term: AVERAGE, the workdir or file of a frozen model, or None."""
    return None

  @property
  def needs_bias(self) -> bool:
    """True if the model must have a logit bias (model.init_logit_bias)."""
    return False

  @property
  def special_tokens(self) -> tuple[str, ...]:
    """Special tokens that the tokenizer must have: "mask", "begin", or both."""
    return ()

  @property
  def compares(self) -> bool:
    """True if the term trains embeddings for comparison by their cosine, so that retrieval can be evaluated."""
    return False

  @property
  def spares_duplicates(self) -> bool:
    """True if rows of the same concept are not negatives of each other."""
    return bool(getattr(self, "mask_same_concept", False))

  def chance(self, batch_size: int, model: Any) -> float | None:
    """Loss of an untrained model. None if no closed form is known.

    Args:
      batch_size: global batch size.
      model: configuration of the model.
    """
    return None

  def check(self, model: Any, columns: Mapping[str, Any]) -> None:
    """Raise ConfigError if the settings do not fit the model or the data. Called before the first step.

    Args:
      model: configuration of the model.
      columns: columns of the data, by name.
    """

  def fitted(self, *, num_records: int, learnt: Mapping[str, Any]) -> "Term":
    """Return the term with the settings that depend on its training data. Called before the first step.

    Args:
      num_records: number of training examples.
      learnt: values that columns learned from them, by column name (Column.fit).
    """
    return self

  def weight_at(self, step: Int[Array, ""]) -> Float[Array, ""]:
    """Weight of the term at a step."""
    return self.weight * (piecewise_linear(step, self.schedule) if self.schedule else jnp.float32(1.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleTerm(Term):
  """A term with a loss per example. It reads one example, or a group of consecutive rows."""

  @property
  def reads(self) -> tuple[str, ...]:
    """Names of the arrays whose encodings the term uses. They are encoded once for all terms."""
    return tuple(name for name in self.needs if name in ("image", "text"))

  @property
  def together(self) -> int:
    """Number of consecutive rows that must be in one microbatch on one device."""
    return 1

  @property
  def fetches(self) -> bool:
    """True if the term reads encodings of other rows, from anywhere in the global batch. `over_rows` then runs after
    all rows are encoded, and gets the result of `fetch`."""
    return False

  def fetch(self, whole: "Whole", encoded: Mapping[str, Encoded], keys: Key[Array, "batch"]) -> Any:
    """Get encodings of other rows: a pytree of arrays [global batch, ...]. Called for terms with `fetches`.

    Args:
      whole: the global batch. It has embeddings if the term asks for `Compares`.
      encoded: encodings of the global batch, by the names in `reads`.
      keys: one key per row, of this term.
    """
    raise undefined(self, "fetch")

  def over_rows(self, forward: "Forward", taught: Any) -> Scores:
    """Compute the scores of the rows of `forward.batch`.

    Args:
      forward: outputs of the model for the rows.
      taught: result of `teach`, or of `fetch`, for the same rows. None for a term without both.
    """
    raise undefined(self, "over_rows")

  def teach(self, forward: "Forward") -> Any:
    """Compute the targets from the teacher's outputs: arrays [batch, ...]. Called for terms with a teacher."""
    raise undefined(self, "teach")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchTerm(Term):
  """A term with a loss over the global batch. It compares the unit-norm embeddings of all examples."""

  between: tuple[str, str] = ("image", "text")
  """Names of the two arrays whose embeddings are compared: image, text, or image2 (second view of data.views=2)."""

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Compares)

  @property
  def compares(self) -> bool:
    return True

  @property
  def embeds(self) -> tuple[str, ...]:
    """Names of the embeddings that are compared."""
    return self.between

  @property
  def encodes(self) -> tuple[str, ...]:
    """Names of the arrays that the model encodes to get these embeddings."""
    return self.embeds

  def memory(self, embed_dim: int) -> Any:
    """Make the values that the term keeps from step to step, before the first step. None: it keeps none."""
    return None

  def parameters(self, key: Key[Array, ""], embed_dim: int) -> Any:
    """Make parameters that only the term has, before the first step. They are trained with the model. None: none.

    Args:
      key: random key.
      embed_dim: dimension of the model's embeddings.
    """
    return None

  def over_batch(self, whole: "Whole") -> tuple[Float[Array, ""], Any]:
    """Compute (unweighted loss over the global batch, memory after this step)."""
    raise undefined(self, "over_batch")


@dataclasses.dataclass(frozen=True)
class Whole:
  """Inputs of a BatchTerm.

  Attributes:
    embeddings: unit-norm float32 embeddings [global batch, dim] by name, sharded over `axes` of `mesh`.
    taught: embeddings of the teacher. Empty without a teacher.
    batch: arrays of the global batch.
    memory: memory of the term after the previous step.
    step: number of optimiser steps taken.
    logit_scale: factor of the similarities.
    logit_bias: bias of the logits. 0 for a model without a bias.
    taught_scale: logit_scale of the teacher.
    mesh: the device mesh.
    axes: axes of the mesh over which the batch is split.
    own: result of the term's `parameters`, trained so far.
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
  own: Any = None


class Forward:
  """Outputs of a model for some rows of a batch. Each one is computed once, when a term first reads it.

  Args:
    model: the model, bound to its parameters.
    batch: the rows.
    keys: one key per row.
    step: number of optimiser steps taken.
    names: names of the arrays that `encoded` encodes.
    training: True to use dropout and other randomness in the model.
    encoded: encodings of the rows, if they are already known.

  Attributes:
    model: the model, bound to its parameters.
    batch: the rows.
    rng: one key per row for the model. None: no randomness.
    step: number of optimiser steps taken.
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
    encoded: dict[str, Encoded] | None = None,
  ):
    self.model, self.batch, self.step = model, batch, step
    self.rng = keys if training else None
    self._keys, self._names = keys, names
    self._kept: dict[Any, Any] = {}
    if encoded is not None:
      self.encoded = encoded

  @functools.cached_property
  def encoded(self) -> dict[str, Encoded]:
    """Encodings of the arrays that terms read."""
    return self.model.encode({name: self.batch[name] for name in self._names}, rng=self.rng)

  @functools.cached_property
  def fused(self) -> dict[str, Encoded]:
    """Encodings after the fusion, by name."""
    return self.model.fuse(self.encoded, rng=self.fusion_rng)

  @property
  def fusion_rng(self) -> Rngs:
    """One key per row for the fusion of the model. None: no randomness."""
    return fold_in(self.rng, _FUSION)

  def keys(self, name: str) -> Key[Array, "batch"]:
    """Make one key per row from a name. The keys do not depend on other terms."""
    return named_keys(self._keys, name)

  def once(self, key: Any, compute: Callable[[], Any]) -> Any:
    """Return the result of `compute`. It is computed once per `key`, so that terms can share it."""
    if key not in self._kept:
      self._kept[key] = compute()
    return self._kept[key]


def named_keys(keys: Key[Array, "batch"], name: str) -> Key[Array, "batch"]:
  """Make one key per row from a name, by the keys of the rows."""
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 1000 + zlib.crc32(name.encode()) % 2**30)


def joint(fused: dict[str, Encoded]) -> Float[Array, "batch width"]:
  """Pooled vector of every example after a fusion."""
  return next(iter(fused.values())).pooled


def weighted_mean(values: Float[Array, "batch"], weights: Float[Array, "batch"]) -> Float[Array, ""]:
  """Weighted mean. 0 if all weights are 0."""
  total = weights.sum()
  return jnp.where(total > 0, (values * weights).sum() / jnp.where(total > 0, total, 1.0), 0.0)
