"""Two encoders and a common embedding space: CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023)."""

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.config import TowerConfig
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.models.comparing import clipped_bias, clipped_scale
from mmjax.models.config import ModelConfig
from mmjax.nn.dense import Dense
from mmjax.nn.norm import normalize
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.types import Batch, Encoded

Projection = Literal["linear", "affine", "none"]


@dataclasses.dataclass(frozen=True)
class TwoTowerConfig(ModelConfig):
  """An image tower, a text tower, and the space they share. Raises ValueError for a scale out of range."""

  image: TowerConfig = ViTConfig()
  """The image tower."""
  text: TowerConfig = TextConfig()
  """The text tower."""
  embed_dim: int = 512
  """Dimension of the common space."""
  image_projection: Projection = "linear"
  """From the image tower to that space: a linear map, one with a bias, or none (SigLIP: the tower's own width)."""
  text_projection: Projection = "linear"
  """From the text tower to that space: a linear map, one with a bias (SigLIP), or none."""
  init_logit_scale: float = 1 / 0.07
  """What similarities are multiplied by at the start (CLIP: 1 / 0.07; SigLIP: 10)."""
  max_logit_scale: float = 100.0
  """The learned scale is clipped to this (CLIP, section 2.5)."""
  init_logit_bias: float | None = None
  """Start of a learned bias that is added to the logits (SigLIP: -10); None: there is none."""
  max_logit_bias: float = 100.0
  """The learned bias is clipped to this, above and (negative) below."""

  def __post_init__(self) -> None:
    if not 0.0 < self.init_logit_scale <= self.max_logit_scale:
      raise ValueError(
        f"init_logit_scale={self.init_logit_scale} must lie in (0, max_logit_scale={self.max_logit_scale}]"
      )
    if abs(self.init_logit_bias or 0.0) > self.max_logit_bias:
      raise ValueError(
        f"init_logit_bias={self.init_logit_bias} must lie within max_logit_bias={self.max_logit_bias} of 0"
      )
    for name, kind, width in (
      ("image", self.image_projection, self.image.pooled_width),
      ("text", self.text_projection, self.text.pooled_width),
    ):
      if kind == "none" and width != self.embed_dim:
        raise ValueError(
          f'{name}_projection="none" needs the width of its tower, {width}, as embed_dim, not {self.embed_dim}'
        )

  def build(self) -> nn.Module:
    return TwoTower(self)


class TwoTower(nn.Module):
  """Parameters: image, text, {image,text}_projection/{kernel,bias}, logit_scale (its logarithm), logit_bias."""

  config: TwoTowerConfig

  def setup(self) -> None:
    c = self.config
    self.image, self.text = c.image.build(), c.text.build()

    def projection(kind: Projection, width: int) -> Dense | None:
      if kind == "none":
        return None
      return Dense(c.embed_dim, nn.initializers.normal(width**-0.5), use_bias=kind == "affine")

    self.image_projection = projection(c.image_projection, c.image.pooled_width)
    self.text_projection = projection(c.text_projection, c.text.pooled_width)
    self.log_scale = self.param("logit_scale", nn.initializers.constant(math.log(c.init_logit_scale)), ())
    if c.init_logit_bias is not None:
      self.bias = self.param("logit_bias", nn.initializers.constant(c.init_logit_bias), ())

  def encode_image(
    self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None
  ) -> Float[Array, "batch dim"]:
    """Embeddings of normalised images, float32 and not unit-norm."""
    return self._project_image(self.image(images, rng=rng))

  def encode_text(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Float[Array, "batch dim"]:
    """Embeddings of token ids, float32 and not unit-norm."""
    return self._project_text(self.text(ids, rng=rng))

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Both towers on every picture and text of the batch (image, text, and second views such as image2).

    Views of one modality go through their tower together; each draws randomness of its own from an example's key.
    """
    names = [name for name in batch if name.startswith(("image", "text"))]
    return self._tower(self.image, "image", names, batch, rng) | self._tower(self.text, "text", names, batch, rng)

  def project(self, encoded: dict[str, Encoded]) -> dict[str, Float[Array, "batch dim"]]:
    """Unit-norm float32 embeddings of what `encode` gave, by the same names."""
    return {
      name: normalize(self._project_image(e) if name.startswith("image") else self._project_text(e))
      for name, e in encoded.items()
    }

  def _tower(self, tower: nn.Module, modality: str, names: list[str], batch: Batch, rng: Rngs) -> dict[str, Encoded]:
    views = sorted(name for name in names if name.startswith(modality))
    if not views:
      return {}
    stream = 0 if modality == "image" else 1
    keys = [fold_in(rng, 2 * number + stream) for number in range(len(views))]
    # Views of an example stand side by side, so that a batch split over devices stays where it is.
    joined = jax.tree.map(_side_by_side, *[(batch[name], key) for name, key in zip(views, keys, strict=True)])
    encoded = tower(joined[0], rng=joined[1])
    pieces = [jax.tree.map(lambda leaf, n=n: leaf[n :: len(views)], encoded) for n in range(len(views))]
    return dict(zip(views, pieces, strict=True))

  def logit_scale(self) -> Float[Array, ""]:
    """What similarities are multiplied by, at most max_logit_scale (see `clipped_scale`)."""
    return clipped_scale(self.log_scale, self.config.max_logit_scale)

  def logit_bias(self) -> Float[Array, ""]:
    """What is added to the logits, at most max_logit_bias either way; 0 where the model has no bias."""
    if self.config.init_logit_bias is None:
      return jnp.zeros((), jnp.float32)
    return clipped_bias(self.bias, self.config.max_logit_bias)

  def __call__(self, batch: Batch) -> dict[str, Float[Array, "batch dim"]]:
    """What `init` runs: everything once."""
    return self.project(self.encode(batch))

  def _project_image(self, encoded: Encoded) -> Float[Array, "batch dim"]:
    pooled = encoded.pooled.astype(jnp.float32)
    return pooled if self.image_projection is None else self.image_projection(pooled)

  def _project_text(self, encoded: Encoded) -> Float[Array, "batch dim"]:
    pooled = encoded.pooled.astype(jnp.float32)
    return pooled if self.text_projection is None else self.text_projection(pooled)


def _side_by_side(*views: Array) -> Array:
  """Arrays [batch, ...] to one [batch * views, ...] in which the rows of one example are neighbours."""
  return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
