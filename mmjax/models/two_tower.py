"""An image tower, a text tower and a common space: CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023)."""

import dataclasses

import flax.linen as nn
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.config import TowerConfig
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.models.shared_space import Member, Projection, SharedSpace, SpaceConfig
from mmjax.nn.stochastic import Rngs


@dataclasses.dataclass(frozen=True)
class TwoTowerConfig(SpaceConfig):
  """An image tower, a text tower, and the space they share. Raises ValueError for a scale out of range."""

  image: TowerConfig = ViTConfig()
  """The image tower."""
  text: TowerConfig = TextConfig()
  """The text tower."""
  image_projection: Projection = "linear"
  """From the image tower to that space: a linear map, one with a bias, or none (SigLIP: the tower's own width)."""
  text_projection: Projection = "linear"
  """From the text tower to that space: a linear map, one with a bias (SigLIP), or none."""

  @property
  def members(self) -> dict[str, Member]:
    return {"image": Member(self.image, self.image_projection), "text": Member(self.text, self.text_projection)}

  def build(self) -> nn.Module:
    return TwoTower(self)


class TwoTower(SharedSpace):
  """Parameters: image, text, {image,text}_projection/{kernel,bias}, logit_scale (its logarithm), logit_bias."""

  config: TwoTowerConfig

  def encode_image(
    self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None
  ) -> Float[Array, "batch dim"]:
    """Embeddings of normalised images, float32 and not unit-norm."""
    return self.embedding("image", self.image(images, rng=rng))

  def encode_text(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Float[Array, "batch dim"]:
    """Embeddings of token ids, float32 and not unit-norm."""
    return self.embedding("text", self.text(ids, rng=rng))
