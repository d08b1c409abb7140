"""The base of the configurations of towers."""

from typing import Any

import flax.linen as nn
from jax import Array

from mmjax.kinds import Kind, undefined


class TowerConfig(Kind):
  """Configuration of a tower: one modality in, `Encoded` out."""

  @property
  def pooled_width(self) -> int:
    """Width of the one vector per example."""
    raise undefined(self, "pooled_width")

  @property
  def batch_statistics(self) -> bool:
    """True if the result for an example depends on the other examples of a training batch (batch norm)."""
    return False

  def fitted(self, learnt: Any) -> "TowerConfig":
    """Return the configuration with the fields that depend on the data. Called before the first step.

    Args:
      learnt: values that the column of the tower learned from the training data (Column.fit).
    """
    return self

  def flops(self) -> int:
    """Forward FLOPs for one example, by formula: what is dropped in training counts, and so does padding."""
    raise undefined(self, "flops")

  def example(self, batch_size: int) -> Array:
    """Zeros of the shape that the tower takes: the array of its column, [batch, ...]."""
    raise undefined(self, "example")

  def build(self) -> nn.Module:
    """Returns the linen module. It is called with the column's array [batch, ...] and `rng`, and returns Encoded."""
    raise undefined(self, "build")


def check_image_size(images: Array, side: int) -> None:
  """Raise ValueError if images [batch, height, width, 3] are not squares with sides of `side` pixels."""
  if images.shape[1:3] != (side, side):
    raise ValueError(f"images are {images.shape[1]}x{images.shape[2]}, but image_size={side}")
