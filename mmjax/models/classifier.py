"""Classifier: towers of any modalities, a fusion if there is one, and a linear layer to the scores of the classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.encoders.config import TowerConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.fusion.config import FusionConfig, make_fusion
from mmjax.models.config import ModelConfig
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(ModelConfig):
  """Towers, and a linear layer from their pooled vectors to the scores of the classes.

  The vectors of several towers stand side by side, or a fusion makes one of them.
  """

  towers: Mapping[str, TowerConfig] = dataclasses.field(default_factory=lambda: {"image": ViTConfig()}, hash=False)
  """Towers by name. A tower encodes the array in the batch that has its name."""
  label: str = "label"
  """Name of the column with the classes (mmjax.data.columns.class_label)."""
  num_classes: int = 1000
  """Number of classes. In training, that of the data."""
  classes: tuple[str, ...] = ()
  """Names of the classes of published weights. Empty: unknown, or in training those of the data."""
  fusion: FusionConfig | None = None
  """Fusion of the towers, in their order. None: the pooled vectors side by side."""

  def __post_init__(self) -> None:
    if not self.towers:
      raise ValueError("a classifier needs a tower: set towers, such as {'image': ViTConfig()}")
    if self.classes and len(self.classes) != self.num_classes:
      raise ValueError(f"classes has {len(self.classes)} names, but num_classes is {self.num_classes}")
    if self.fusion is not None and len(self.towers) < 2:
      raise ValueError(f"a fusion needs two towers, and the classifier has {', '.join(self.towers)}: leave fusion out")
    if self.fusion is not None and self.fusion.kind == "late":
      raise ValueError(
        'fusion.kind "late" makes scores, not a vector for the classifier: leave fusion out, or choose sum'
      )

  def fitted(self, learnt: Mapping[str, Any]) -> "ClassifierConfig":
    if self.label not in learnt:
      return self
    return dataclasses.replace(self, num_classes=len(learnt[self.label]["classes"]), classes=())

  def example(self, batch_size: int) -> dict[str, Array]:
    return {name: tower.example(batch_size) for name, tower in self.towers.items()}

  def build(self) -> nn.Module:
    return Classifier(self)


class Classifier(nn.Module):
  """Model of a ClassifierConfig.

  Parameters: each tower under its name, as in a TwoTower, fusion if there is one, and class_projection/{kernel,bias}.
  The projection begins at zero, so that every class has the same score.
  """

  config: ClassifierConfig

  def setup(self) -> None:
    for name, tower in self.config.towers.items():
      setattr(self, name, tower.build())
    if self.config.fusion is not None:
      self.fusion = make_fusion(self.config.fusion)
    self.class_projection = Dense(self.config.num_classes, nn.initializers.zeros)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encode the arrays of the batch that have a tower.

    Args:
      batch: arrays by name.
      rng: one key per example. None: no randomness.
    """
    towers = [name for name in self.config.towers if name in batch]
    return {name: getattr(self, name)(batch[name], rng=fold_in(rng, place)) for place, name in enumerate(towers)}

  def class_logits(self, encoded: Mapping[str, Encoded]) -> Float[Array, "batch classes"]:
    """Scores of the classes in float32, from the encodings of all towers. The fusion has no stochastic depth."""
    each = [encoded[name] for name in self.config.towers]
    vectors = [self.fusion(*each).pooled] if self.config.fusion is not None else [one.pooled for one in each]
    return self.class_projection(jnp.concatenate([vector.astype(jnp.float32) for vector in vectors], axis=-1))

  @nn.jit
  def encode_image(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch dim"]:
    """Compute the pooled vectors of the tower "image", in float32."""
    return self.image(images).pooled.astype(jnp.float32)

  def __call__(self, batch: Batch) -> Float[Array, "batch classes"]:
    """Scores of the classes for a batch."""
    return self.class_logits(self.encode(batch))
