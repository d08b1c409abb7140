"""ALIGN in the form of transformers' published models: EfficientNet beside BERT (Jia et al. 2021)."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.encoders.bert import bert_config
from mmjax.encoders.config import TowerConfig
from mmjax.encoders.efficientnet import EfficientNetConfig
from mmjax.encoders.text import TextConfig
from mmjax.models.shared_space import Member, Projection, SharedSpace, SpaceConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlignConfig(SpaceConfig):
  """An image tower whose vector is the embedding, and a text tower with a projection. Raises ValueError.

  To train such a model, use TwoTowerConfig: its factor of the similarities has limits, and losses know it.
  """

  image: TowerConfig = EfficientNetConfig(image_size=600, width=2.0, depth=3.1, lite=False, head=False, norm="frozen")
  """Image tower."""
  text: TextConfig = bert_config(tanh_pool=False)
  """Text tower."""
  text_projection: Projection = "affine"
  """Projection of the text tower."""
  embed_dim: int = 640
  init_logit_scale: float | None = None
  """Always None: the factor is the inverse of a learned temperature."""
  init_temperature: float = 1.0
  """Initial value of the temperature, by which similarities are divided."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.init_logit_scale is not None or self.init_temperature <= 0:
      raise ValueError(
        f"init_logit_scale={self.init_logit_scale} must be None, and init_temperature={self.init_temperature} above 0"
      )

  @property
  def members(self) -> dict[str, Member]:
    return {"image": Member(self.image, "none"), "text": Member(self.text, self.text_projection)}

  def build(self) -> nn.Module:
    return Align(self)


class Align(SharedSpace):
  """transformers' AlignModel. Parameters: image, text, text_projection, temperature."""

  config: AlignConfig

  def setup(self) -> None:
    super().setup()
    self.temperature = self.param("temperature", nn.initializers.constant(self.config.init_temperature), ())

  def logit_scale(self) -> Float[Array, ""]:
    """Factor of the similarities: the inverse of the temperature."""
    return 1 / jnp.asarray(self.temperature)
