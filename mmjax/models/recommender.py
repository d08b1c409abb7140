"""Recommender: a tower of users and one of items, each over several arrays (Covington et al. 2016; Yi et al. 2019)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmjax.encoders.config import TowerConfig
from mmjax.encoders.embedding_bag import EmbeddingBagConfig
from mmjax.models.joined import Joined, JoinedConfig
from mmjax.models.shared_space import Member, Projection, SharedSpace, SpaceConfig
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.types import Batch, Encoded

USER, ITEM = "user", "item"
"""Names of the two embeddings. That of the item in the arrays whose names end in 2 is `item2`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecommenderConfig(SpaceConfig):
  """Configuration of the towers of users and items.

  Each reads some arrays of the batch: ids, text, image, table. The pooled vectors of the arrays' encoders stand side by
  side, and a projection maps them to the shared space.
  """

  towers: Mapping[str, TowerConfig] = dataclasses.field(
    default_factory=lambda: {"history": EmbeddingBagConfig(length=20), "item": EmbeddingBagConfig()}, hash=False
  )
  """Encoders of the arrays, by the names of the arrays. A second view (item2) has the encoder of the first."""
  of_user: tuple[str, ...] = ("history",)
  """Names of the arrays of the user. The others are of the item."""
  projection: Projection = "mlp"
  """Projection to the shared space: linear, affine (with a bias), mlp (see `ProjectionMLP`), or none."""
  embed_dim: int = 64
  """Dimension of the embeddings."""
  init_logit_scale: float | None = 10.0
  """Initial value of the learned factor of the similarities, the inverse temperature."""

  def __post_init__(self) -> None:
    unknown = [name for name in self.of_user if name not in self.towers]
    if unknown or not self.of_user or len(self.of_user) == len(self.towers):
      raise ValueError(
        f"of_user={self.of_user} must name some of the towers, not all: there are {', '.join(self.towers)}"
      )
    super().__post_init__()

  @property
  def members(self) -> dict[str, Member]:
    sides: Mapping[str, Any] = self.sides  # they are no towers of one array, and are used like towers
    return {name: Member(side, self.projection) for name, side in sides.items()}

  @property
  def sides(self) -> dict[str, "SideConfig"]:
    """The towers of users and of items."""
    user = {name: tower for name, tower in self.towers.items() if name in self.of_user}
    return {USER: SideConfig(towers=user), ITEM: SideConfig(towers=_without(self.towers, user))}

  def example(self, batch_size: int) -> dict[str, Array]:
    return {name: tower.example(batch_size) for name, tower in self.towers.items()}

  def build(self) -> nn.Module:
    return Recommender(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideConfig(JoinedConfig):
  """Encoders whose pooled vectors stand side by side."""

  @property
  def pooled_width(self) -> int:
    """Width of the vector."""
    return sum(tower.pooled_width for tower in self.towers.values())

  def build(self) -> nn.Module:
    return Side(self)


class Side(Joined):
  """Model of a SideConfig: the tower of users, or of items. Parameters: each encoder under its name."""

  config: SideConfig
  head = None

  def __call__(self, batch: Batch, *, rng: Rngs = None) -> Any:
    """Encode arrays, by name, to `Encoded`: one vector for each example, which is also the only token."""
    joint = self.joint(self.encode(batch, rng=rng))
    return Encoded(joint[:, None], jnp.ones((len(joint), 1), bool), joint)


class Recommender(SharedSpace):
  """Model of a RecommenderConfig.

  Parameters: user/ARRAY, item/ARRAY (the encoders), {user,item}_projection, logit_scale (its logarithm).

  Example:
    >>> import jax
    >>> from mmjax.models import RecommenderConfig
    >>> config = RecommenderConfig(embed_dim=8)
    >>> embeddings, _ = config.build().init_with_output(jax.random.key(0), config.example(2))
    >>> embeddings["user"].shape, embeddings["item"].shape
    ((2, 8), (2, 8))
  """

  config: RecommenderConfig

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encode the user, the item and the second item (`user`, `item`, `item2`), those whose arrays are in the batch.

    Args:
      batch: arrays by name.
      rng: one key per example. None: no randomness.
    Raises: ValueError: some arrays of a tower are in the batch, and others are not.
    """
    encoded: dict[str, Encoded] = {}
    for number, (name, side) in enumerate(self.config.sides.items()):
      for view in ("", "2"):
        rows = {array: batch[array + view] for array in side.towers if array + view in batch}
        if 0 < len(rows) < len(side.towers):
          lacking = ", ".join(array + view for array in side.towers if array not in rows)
          raise ValueError(f"the tower of the {name} reads {', '.join(side.towers)}, and the batch lacks {lacking}")
        if rows:
          encoded[name + view] = getattr(self, name)(rows, rng=fold_in(rng, 2 * number + bool(view)))
    return encoded


def _without(towers: Mapping[str, Any], left: Mapping[str, Any]) -> dict[str, Any]:
  return {name: tower for name, tower in towers.items() if name not in left}
