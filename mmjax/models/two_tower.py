"""Models with an image tower and a text tower: CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023)."""

import dataclasses

import flax.linen as nn

from mmjax.encoders.config import TowerConfig
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.models.shared_space import Member, Projection, SharedSpace, SpaceConfig


@dataclasses.dataclass(frozen=True)
class TwoTowerConfig(SpaceConfig):
  """Configuration of an image tower and a text tower. Raises ValueError if a scale or bias is out of range."""

  image: TowerConfig = ViTConfig()
  """Image tower."""
  text: TowerConfig = TextConfig()
  """Text tower."""
  image_projection: Projection = "linear"
  """Projection of the image tower to the shared space: linear, affine (with a bias), mlp (see
  `ProjectionMLP`), or none (SigLIP), which needs a tower of width embed_dim."""
  text_projection: Projection = "linear"
  """Projection of the text tower to the shared space: linear, affine (with a bias; SigLIP), mlp (two layers;
  open_clip), or none."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.init_logit_scale is None:
      raise ValueError("init_logit_scale must be a number: a model with two towers has logits")

  @property
  def members(self) -> dict[str, Member]:
    return {"image": Member(self.image, self.image_projection), "text": Member(self.text, self.text_projection)}

  def build(self) -> nn.Module:
    return TwoTower(self)


class TwoTower(SharedSpace):
  """Model of a TwoTowerConfig.

  Parameters: image, text, {image,text}_projection/{kernel,bias}, logit_scale (its logarithm) and logit_bias.

  Example:
    >>> import jax
    >>> from mmjax.encoders import TextConfig, ViTConfig
    >>> from mmjax.models import TwoTowerConfig
    >>> tiny = dict(width=8, depth=1, num_heads=2)
    >>> image, text = ViTConfig(image_size=8, patch_size=4, **tiny), TextConfig(max_length=4, **tiny)
    >>> config = TwoTowerConfig(image=image, text=text, embed_dim=16)
    >>> embeddings, variables = config.build().init_with_output(jax.random.key(0), config.example(2))
    >>> embeddings["image"].shape, embeddings["text"].shape
    ((2, 16), (2, 16))
  """

  config: TwoTowerConfig
