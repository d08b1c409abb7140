"""Towers of any modalities with a shared embedding space: CLIP (Radford et al. 2021) with any number of encoders."""

import dataclasses
import math
import operator
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.config import TowerConfig
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.models.comparing import clamped_scale, clipped_bias, clipped_scale
from mmjax.models.config import ModelConfig
from mmjax.nn.dense import Dense
from mmjax.nn.mlp import gelu
from mmjax.nn.norm import normalize
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.types import Batch, Encoded

Projection = Literal["linear", "affine", "none", "mlp", "mlp_relu"]


class Member(NamedTuple):
  """A tower, and the projection of its pooled vector to the shared space."""

  tower: TowerConfig
  projection: Projection


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceConfig(ModelConfig):
  """Settings of the shared space. Raises ValueError if a scale, bias or width does not fit."""

  embed_dim: int = 512
  """Dimension of the embeddings."""
  init_logit_scale: float | None = 1 / 0.07
  """Initial value of the learned factor of the similarities (CLIP: 1 / 0.07; SigLIP: 10). None: no factor, for
  published weights of one tower with its projection."""
  max_logit_scale: float = 100.0
  """Largest value of the learned scale. The parameter is clamped to it after each step (CLIP, section 2.5). inf: no
  limit, as for the sigmoid loss in SigLIP."""
  init_logit_bias: float | None = None
  """Initial value of a learned bias of the logits (SigLIP: -10). None: no bias."""
  max_logit_bias: float = 100.0
  """Largest absolute value of the learned bias. The parameter is clamped to it after each step. inf: no limit, as in
  SigLIP."""

  def __post_init__(self) -> None:
    if self.init_logit_scale is not None and not 0.0 < self.init_logit_scale <= self.max_logit_scale:
      raise ValueError(
        f"init_logit_scale={self.init_logit_scale} must lie in (0, max_logit_scale={self.max_logit_scale}]"
      )
    if abs(self.init_logit_bias or 0.0) > self.max_logit_bias:
      raise ValueError(
        f"init_logit_bias={self.init_logit_bias} must lie within max_logit_bias={self.max_logit_bias} of 0"
      )
    for name, member in self.members.items():
      if member.projection == "none" and member.tower.pooled_width != self.embed_dim:
        raise ValueError(
          f'{name}_projection="none" needs the width of its tower, {member.tower.pooled_width}, as embed_dim, not '
          f"{self.embed_dim}"
        )

  @property
  def members(self) -> dict[str, Member]:
    """Towers and their projections, by name."""
    raise NotImplementedError

  def clamped(self, params: Any) -> Any:
    if self.init_logit_scale is not None:
      params = clamped_scale(params, self.max_logit_scale)
    if self.init_logit_bias is None:
      return params
    return {**params, "logit_bias": jnp.clip(params["logit_bias"], -self.max_logit_bias, self.max_logit_bias)}

  def example(self, batch_size: int) -> dict[str, Array]:
    return {name: member.tower.example(batch_size) for name, member in self.members.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedSpaceConfig(SpaceConfig):
  """Configuration of a model with any towers. A tower encodes the array in the batch that has its name.

  The model has the methods `encode`, `project`, `logit_scale` and `logit_bias` (see SharedSpace).
  """

  towers: Mapping[str, TowerConfig] = dataclasses.field(
    default_factory=lambda: {"image": ViTConfig(), "text": TextConfig()}, hash=False
  )
  """Towers by name. The second view of an array (image2) is encoded by the tower of the first (image)."""
  projection: Projection = "linear"
  """Projection of each tower to the shared space: linear, affine (with a bias), mlp (see `ProjectionMLP`), mlp_relu
  (see `ReluMLP`), or none (width embed_dim)."""

  @property
  def members(self) -> dict[str, Member]:
    return {name: Member(tower, self.projection) for name, tower in self.towers.items()}

  def build(self) -> nn.Module:
    return SharedSpace(self)


class ProjectionMLP(nn.Module):
  """Two linear layers without biases, with GELU between them (open_clip). Parameters: up, down.

  The hidden layer has (width + features) // 2 units.
  """

  features: int

  @nn.compact
  def __call__(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch features"]:
    width = pooled.shape[-1]
    hidden = (width + self.features) // 2
    layer = lambda features, inputs, name: Dense(
      features, nn.initializers.normal(inputs**-0.5), use_bias=False, name=name
    )
    return layer(self.features, hidden, "down")(gelu(layer(hidden, width, "up")(pooled)))


class ReluMLP(nn.Module):
  """Two linear layers with biases, with ReLU between them (CLAP). Parameters: up, down, both of width `features`."""

  features: int

  @nn.compact
  def __call__(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch features"]:
    layer = lambda inputs, name: Dense(self.features, nn.initializers.normal(inputs**-0.5), name=name)
    return layer(self.features, "down")(jax.nn.relu(layer(pooled.shape[-1], "up")(pooled)))


def _projection(member: Member, embed_dim: int) -> nn.Module | None:
  """Module that projects the pooled vector of a tower."""
  if member.projection == "none":
    return None
  if member.projection == "mlp":
    return ProjectionMLP(embed_dim)
  if member.projection == "mlp_relu":
    return ReluMLP(embed_dim)
  init = nn.initializers.normal(member.tower.pooled_width**-0.5)
  return Dense(embed_dim, init, use_bias=member.projection == "affine")


class SharedSpace(nn.Module):
  """Model of a SpaceConfig.

  Parameters: each tower under its name, NAME_projection, logit_scale (its logarithm) and logit_bias.
  """

  config: Any  # a SpaceConfig

  def setup(self) -> None:
    c = self.config
    for name, member in c.members.items():
      setattr(self, name, member.tower.build())
      setattr(self, f"{name}_projection", _projection(member, c.embed_dim))
    if c.init_logit_scale is not None:
      self.log_scale = self.param("logit_scale", nn.initializers.constant(math.log(c.init_logit_scale)), ())
    if c.init_logit_bias is not None:
      self.bias = self.param("logit_bias", nn.initializers.constant(c.init_logit_bias), ())

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encode every array of the batch that has a tower, and second views (image2).

    The views of one modality go through their tower in one batch. Each view has its own randomness, from the key of the
    example.

    Args:
      batch: arrays by name.
      rng: one key per example. None: no randomness.
    Returns: encodings by the names of the arrays.
    """
    towers = list(self.config.members)
    encoded: dict[str, Encoded] = {}
    for stream, tower in enumerate(towers):
      views = sorted(name for name in batch if tower_of(name, towers) == tower)
      if views:
        keys = [fold_in(rng, len(towers) * number + stream) for number in range(len(views))]
        # The views of an example are neighbours, so that no rows move between devices.
        joined = jax.tree.map(_side_by_side, *[(batch[name], key) for name, key in zip(views, keys, strict=True)])
        together = getattr(self, tower)(joined[0], rng=joined[1])
        for number, view in enumerate(views):
          encoded[view] = jax.tree.map(operator.itemgetter(slice(number, None, len(views))), together)
    return encoded

  def project(self, encoded: dict[str, Encoded]) -> dict[str, Float[Array, "batch dim"]]:
    """Compute unit-norm float32 embeddings from encodings, by the same names."""
    return {name: normalize(self.embedding(name, e)) for name, e in encoded.items()}

  def embedding(self, name: str, encoded: Encoded) -> Float[Array, "batch dim"]:
    """Project an encoding to the shared space. The embedding is float32 and not unit-norm."""
    projection = getattr(self, f"{tower_of(name, list(self.config.members))}_projection")
    pooled = encoded.pooled.astype(jnp.float32)
    return pooled if projection is None else projection(pooled)

  def logit_scale(self) -> Float[Array, ""]:
    """Factor of the similarities, at most max_logit_scale (see `clipped_scale`). 1 for a model without a factor."""
    if self.config.init_logit_scale is None:
      return jnp.ones((), jnp.float32)
    return clipped_scale(self.log_scale, self.config.max_logit_scale)

  def logit_bias(self) -> Float[Array, ""]:
    """Bias of the logits, clipped to +-max_logit_bias. 0 for a model without a bias."""
    if self.config.init_logit_bias is None:
      return jnp.zeros((), jnp.float32)
    return clipped_bias(self.bias, self.config.max_logit_bias)

  @nn.jit
  def encode_image(self, images: Float[Array, "batch *image"], *, rng: Rngs = None) -> Float[Array, "batch dim"]:
    """Compute embeddings of normalised images with the tower "image". They are float32 and not unit-norm.

    Images are [batch, height, width, 3]. A NaFlex tower also takes rows of patches (mmjax.data.images.native).
    """
    return self.embedding("image", self.image(images, rng=rng))

  @nn.jit
  def encode_text(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Float[Array, "batch dim"]:
    """Compute embeddings of texts from token ids with the tower "text". They are float32 and not unit-norm."""
    return self.embedding("text", self.text(ids, rng=rng))

  def __call__(self, batch: Batch) -> dict[str, Float[Array, "batch dim"]]:
    """Run all parts once, for `init`."""
    return self.project(self.encode(batch))


def tower_of(name: str, towers: list[str]) -> str | None:
  """Return the name of the tower of an array: its name, or for a second view (image2) the name without the number.

  None if there is no such tower.
  """
  first = name if name in towers else name.rstrip("0123456789")
  return first if first in towers else None


def _side_by_side(*views: Array) -> Array:
  """Combine arrays [batch, ...] into one [batch * views, ...] in which the views of an example are neighbours."""
  return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
