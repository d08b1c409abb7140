"""Classifier: towers of any modalities, a fusion if there is one, and a linear layer to the scores of the classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jax import Array
from jaxtyping import Float

from mmjax.models.joined import Joined, JoinedConfig
from mmjax.nn.stochastic import Rngs
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(JoinedConfig):
  """Towers, and a linear layer from their pooled vectors to the scores of the classes.

  The vectors of several towers stand side by side, or a fusion makes one of them.
  """

  label: str = "label"
  """Name of the column with the classes (mmjax.data.columns.class_label)."""
  num_classes: int = 1000
  """Number of classes. In training, that of the data."""
  classes: tuple[str, ...] = ()
  """Names of the classes of published weights. Empty: unknown, or in training those of the data."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.classes and len(self.classes) != self.num_classes:
      raise ValueError(f"classes has {len(self.classes)} names, but num_classes is {self.num_classes}")

  @property
  def outputs(self) -> int:
    return self.num_classes

  def fitted(self, learnt: Mapping[str, Any]) -> "ClassifierConfig":
    config: Any = super().fitted(learnt)
    if self.label not in learnt:
      return config
    return dataclasses.replace(config, num_classes=len(learnt[self.label]["classes"]), classes=())

  def build(self) -> nn.Module:
    return Classifier(self)


class Classifier(Joined):
  """Model of a ClassifierConfig.

  Parameters: those of `Joined`, with class_projection/{kernel,bias} (not with late fusion). The projection begins at
  zero, so that every class has the same score.
  """

  config: ClassifierConfig
  head = "class_projection"

  def class_logits(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> Float[Array, "batch classes"]:
    """Scores of the classes in float32, from the encodings of all towers. `rng` is that of `outputs`."""
    return self.outputs(encoded, rng=rng)
