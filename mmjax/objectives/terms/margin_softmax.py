"""Loss terms of verification: softmax over the identities of the training data, with a margin."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.errors import ConfigError
from mmjax.models.protocols import Encodes, Identifies
from mmjax.objectives.losses.margin_softmax import arcface_cosines, cosface_cosines
from mmjax.objectives.losses.per_example import ExampleLosses, class_loss, correct
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores


@dataclasses.dataclass(frozen=True)
class MarginSoftmax(ExampleTerm):
  """Base of the terms. The loss is the cross-entropy of scale * cosines, with a margin on the right identity.

  The accuracy in the log is without the margin. An example whose identity is unknown (-1) has no weight.
  """

  source: str = "audio"
  """Name of the array whose identity is learned."""
  label: str = "label"
  """Name of the column with the identities (ClassLabel)."""
  scale: float = 64.0
  """Factor of the cosines, the inverse of a temperature. A few identities need a smaller one, such as 16."""
  margin: float = 0.0
  """Margin on the right identity. 0: none (NormFace)."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.scale <= 0:
      raise ValueError(f"scale is {self.scale}: it must be above 0")
    if not 0 <= self.margin < self.widest:
      raise ValueError(f"margin is {self.margin}: it must lie in [0, {self.widest:.6g})")

  @property
  def widest(self) -> float:
    """Limit of the margin."""
    return 1.0

  @property
  def name(self) -> str:
    return "margin_softmax"

  @property
  def needs(self) -> tuple[str, ...]:
    return (self.source, self.label)

  @property
  def reads(self) -> tuple[str, ...]:
    return (self.source,)

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Identifies)

  def check(self, model: Any, columns: Any) -> None:
    towers = getattr(model, "towers", {self.source: None})
    if self.source not in towers:
      raise ConfigError(
        f"the objective {self.name} reads {self.source!r}, and the model has the tower {', '.join(towers)}: set the "
        "source of the objective to it"
      )

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    labels, known = forward.batch[self.label], forward.batch[self.label] >= 0
    cosines = forward.model.identity_cosines({self.source: forward.encoded[self.source]})
    loss = class_loss(self.scale * self.with_margin(cosines, labels), labels)
    accuracy = correct(cosines, labels)
    return {"loss": loss, "accuracy": ExampleLosses(accuracy.losses, known.astype(jnp.float32))}

  def with_margin(
    self, cosines: Float[Array, "batch identities"], labels: Int[Array, "batch"]
  ) -> Float[Array, "batch identities"]:
    """Cosines with a margin on the right identity."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ArcFace(MarginSoftmax):
  """ArcFace: a margin on the angle of the right identity (Deng et al. 2019)."""

  margin: float = 0.5
  """Margin in radians. 0: none."""

  @property
  def name(self) -> str:
    return "arc_face"

  @property
  def widest(self) -> float:
    return 1.5707963

  def with_margin(
    self, cosines: Float[Array, "batch identities"], labels: Int[Array, "batch"]
  ) -> Float[Array, "batch identities"]:
    return arcface_cosines(cosines, labels, margin=self.margin)


@dataclasses.dataclass(frozen=True)
class CosFace(MarginSoftmax):
  """CosFace: a margin on the cosine of the right identity (Wang et al. 2018)."""

  margin: float = 0.35
  """Margin, a difference of cosines. 0: none."""

  @property
  def name(self) -> str:
    return "cos_face"

  def with_margin(
    self, cosines: Float[Array, "batch identities"], labels: Int[Array, "batch"]
  ) -> Float[Array, "batch identities"]:
    return cosface_cosines(cosines, labels, margin=self.margin)
