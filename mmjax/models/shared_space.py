"""Towers of any modalities and the space they share: CLIP (Radford et al. 2021) with any number of encoders."""

import dataclasses
import math
import operator
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

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


class Member(NamedTuple):
  """A tower of a shared space, and the map from its pooled vector to the space."""

  tower: TowerConfig
  projection: Projection


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceConfig(ModelConfig):
  """The space that towers share. Raises ValueError for a scale or a bias out of range."""

  embed_dim: int = 512
  """Dimension of the common space."""
  init_logit_scale: float = 1 / 0.07
  """Similarities are multiplied by it at the start (CLIP: 1 / 0.07; SigLIP: 10)."""
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
    for name, member in self.members.items():
      if member.projection == "none" and member.tower.pooled_width != self.embed_dim:
        raise ValueError(
          f'{name}_projection="none" needs the width of its tower, {member.tower.pooled_width}, as embed_dim, not '
          f"{self.embed_dim}"
        )

  @property
  def members(self) -> dict[str, Member]:
    """The towers and their projections, by name."""
    raise NotImplementedError

  def example(self, batch_size: int) -> dict[str, Array]:
    return {name: member.tower.example(batch_size) for name, member in self.members.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SharedSpaceConfig(SpaceConfig):
  """Towers by name, each for the array of that name in a batch, and the space they share."""

  towers: Mapping[str, TowerConfig] = dataclasses.field(
    default_factory=lambda: {"image": ViTConfig(), "text": TextConfig()}, hash=False
  )
  """The towers. A second view of an array (image2) goes through the tower of the first."""
  projection: Projection = "linear"
  """From each tower to the space: a linear map, one with a bias, or none (towers of width embed_dim)."""

  @property
  def members(self) -> dict[str, Member]:
    return {name: Member(tower, self.projection) for name, tower in self.towers.items()}

  def build(self) -> nn.Module:
    return SharedSpace(self)


class SharedSpace(nn.Module):
  """Parameters: each tower under its name, NAME_projection/{kernel,bias}, logit_scale (its logarithm), logit_bias."""

  config: Any  # a SpaceConfig

  def setup(self) -> None:
    c = self.config
    for name, member in c.members.items():
      setattr(self, name, member.tower.build())
      width, kind = member.tower.pooled_width, member.projection
      init = nn.initializers.normal(width**-0.5)
      setattr(
        self, f"{name}_projection", None if kind == "none" else Dense(c.embed_dim, init, use_bias=kind == "affine")
      )
    self.log_scale = self.param("logit_scale", nn.initializers.constant(math.log(c.init_logit_scale)), ())
    if c.init_logit_bias is not None:
      self.bias = self.param("logit_bias", nn.initializers.constant(c.init_logit_bias), ())

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Every array of the batch that has a tower, and second views (image2), by its tower.

    Views of one modality go through their tower together; each draws randomness of its own from an example's key.
    """
    towers = list(self.config.members)
    encoded: dict[str, Encoded] = {}
    for stream, tower in enumerate(towers):
      views = sorted(name for name in batch if tower_of(name, towers) == tower)
      if views:
        keys = [fold_in(rng, len(towers) * number + stream) for number in range(len(views))]
        # Views of an example stand side by side, so that a batch split over devices stays where it is.
        joined = jax.tree.map(_side_by_side, *[(batch[name], key) for name, key in zip(views, keys, strict=True)])
        together = getattr(self, tower)(joined[0], rng=joined[1])
        for number, view in enumerate(views):
          encoded[view] = jax.tree.map(operator.itemgetter(slice(number, None, len(views))), together)
    return encoded

  def project(self, encoded: dict[str, Encoded]) -> dict[str, Float[Array, "batch dim"]]:
    """Unit-norm float32 embeddings of what `encode` gave, by the same names."""
    return {name: normalize(self.embedding(name, e)) for name, e in encoded.items()}

  def embedding(self, name: str, encoded: Encoded) -> Float[Array, "batch dim"]:
    """The embedding of an encoded array, float32 and not unit-norm."""
    projection = getattr(self, f"{tower_of(name, list(self.config.members))}_projection")
    pooled = encoded.pooled.astype(jnp.float32)
    return pooled if projection is None else projection(pooled)

  def logit_scale(self) -> Float[Array, ""]:
    """The factor of similarities, at most max_logit_scale (see `clipped_scale`)."""
    return clipped_scale(self.log_scale, self.config.max_logit_scale)

  def logit_bias(self) -> Float[Array, ""]:
    """The bias of the logits, at most max_logit_bias either way; 0 where the model has no bias."""
    if self.config.init_logit_bias is None:
      return jnp.zeros((), jnp.float32)
    return clipped_bias(self.bias, self.config.max_logit_bias)

  def __call__(self, batch: Batch) -> dict[str, Float[Array, "batch dim"]]:
    """Runs everything once, for `init`."""
    return self.project(self.encode(batch))


def tower_of(name: str, towers: list[str]) -> str | None:
  """The tower of an array: of its own name, or, for a second view (image2), of the name without the number."""
  first = name if name in towers else name.rstrip("0123456789")
  return first if first in towers else None


def _side_by_side(*views: Array) -> Array:
  """Arrays [batch, ...] to one [batch * views, ...] in which the rows of one example are neighbours."""
  return jnp.stack(views, axis=1).reshape(-1, *views[0].shape[1:])
