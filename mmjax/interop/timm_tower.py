"""Image towers of timm in open_clip's configuration: the fields that all families have.

A family is a module with the members of `Family` and a line in `mmjax.interop.open_clip_timm.FAMILIES`.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from mmjax.encoders import ViTConfig
from mmjax.encoders.config import TowerConfig
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm
from mmjax.models import TwoTowerConfig
from mmjax.models.shared_space import Projection

Tower = TypeVar("Tower", bound=TowerConfig)

# Projection of the image by timm_proj. None: the classifier of timm's network, which has a bias.
_PROJECTIONS: dict[str | None, Projection] = {"none": "none", "linear": "linear", None: "affine", "": "affine"}
_PROJ = {projection: proj for proj, projection in _PROJECTIONS.items() if proj != ""}


class Family(Protocol):
  """Members of a family's module."""

  @property
  def TOWERS(self) -> Mapping[str, Any]:
    """Configurations of the towers, by their names in timm."""

  def has(self, config: TwoTowerConfig) -> bool:
    """True if a model's image tower is of this family, of any size."""

  def read(self, vision: Fields, embed_dim: int) -> tuple[TowerConfig, Projection]:
    """Read vision_cfg, whose timm_model_name is in TOWERS."""

  def write(self, config: TwoTowerConfig) -> dict[str, Any]:
    """Write vision_cfg. Raises InteropError if timm has no tower of this size."""

  def rules(self, config: TwoTowerConfig) -> tuple[Rule, ...]:
    """Mapping rules of the image tower and of the projection of the image."""


def read_vit(vision: Fields, tower: Tower, embed_dim: int, *, pools: Collection[str]) -> tuple[Tower, Projection]:
  """Read the fields of vision_cfg beside the name.

  Args:
    vision: vision_cfg.
    tower: the tower of this name.
    embed_dim: dimension of the embeddings.
    pools: values of timm_pool that all mean the pooling of the tower. "" is the pooling of timm's network, which
      open_clip keeps only beneath a projection of its own.
  Returns: (configuration, projection of the image).
  Raises: InteropError: vision_cfg has another size, pooling or projection.
  """
  size: Any = tower
  vision.only("image_size", size.image_size, size.image_size)
  vision.only("timm_proj_bias", False, False)
  proj = vision.get("timm_proj", "linear")
  if proj not in _PROJECTIONS:
    raise vision.wrong("timm_proj", 'one of "linear", "none" and null')
  same = [pool for pool in pools if pool or proj == "linear"]
  if vision.get("timm_pool", "avg") not in same:
    vision.only("timm_pool", same[0], "avg")
  if proj == "none" and tower.pooled_width != embed_dim:
    name = vision.text("timm_model_name")
    raise InteropError(f"{vision.where}: {name} gives {tower.pooled_width} numbers, and embed_dim is {embed_dim}")
  return tower, _PROJECTIONS[proj]


def written(config: TwoTowerConfig, name: str, *, pool: str) -> dict[str, Any]:
  """Write vision_cfg for a tower of timm and a value of timm_pool."""
  image: Any = config.image
  if config.image_projection != "linear":
    pool = pool or "avg"
  cfg = {"image_size": image.image_size, "timm_model_name": name, "timm_model_pretrained": False}
  return cfg | {"timm_pool": pool, "timm_proj": _PROJ[config.image_projection]}


def vit_name(c: Any, towers: Mapping[str, ViTConfig]) -> str:
  """Name of the tower that has the size of a ViT. Raises InteropError if there is none."""
  mine = _size(c)
  for name, tower in towers.items():
    if _size(tower) == mine:
      return name
  raise InteropError(
    f"open_clip takes this kind of image tower from timm, which has none of this size; it has {', '.join(towers)}. Use "
    'format="mmjax" (--to mmjax), which holds every model'
  )


def _size(c: ViTConfig) -> tuple[Any, ...]:
  names = (
    "image_size",
    "patch_size",
    "width",
    "depth",
    "num_heads",
    "hidden",
    "activation",
    "pool",
    "positions",
    "norm",
  )
  return tuple(getattr(c, name) for name in names)


def in_blocks(rules: Iterable[Rule]) -> tuple[Rule, ...]:
  """Add the prefixes of the blocks to the rules of one block."""
  ours, theirs = r"transformer/block_(\d+)/", r"trunk.blocks.\1."
  return tuple(dataclasses.replace(rule, ours=ours + rule.ours, theirs=theirs + rule.theirs) for rule in rules)


def norms(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
  """Rules of layer norms: (ours, theirs)."""
  return tuple(rule for ours, theirs in pairs for rule in norm(ours, theirs))


POSITIONS = (
  Rule("class_token$", "trunk.cls_token", "1 1 d -> 1 d"),
  Rule("class_position$", "trunk.pos_embed", "1 t d -> t d", part=0, axis=1),
  Rule("position_embedding$", "trunk.pos_embed", "1 t d -> t d", part=1, axis=1),
)
"""Rules of the class token and of learned positions."""


MAP = joined(
  (Rule("pool/probe$", "trunk.attn_pool.latent", "1 t d -> t d"),),
  linear("pool/attention/query", "trunk.attn_pool.q"),
  linear("pool/attention/key", "trunk.attn_pool.kv", 0),
  linear("pool/attention/value", "trunk.attn_pool.kv", 1),
  linear("pool/attention/out", "trunk.attn_pool.proj"),
  norm("pool/norm", "trunk.attn_pool.norm"),
  linear("pool/mlp/up", "trunk.attn_pool.mlp.fc1"),
  linear("pool/mlp/down", "trunk.attn_pool.mlp.fc2"),
)
"""Rules of MAP pooling."""


def head_rules(projection: Projection) -> tuple[Rule, ...]:
  """Mapping rules of the projection of the image."""
  if projection == "affine":
    return linear("^image_projection", "visual.trunk.head")
  return (Rule("^image_projection/kernel$", "visual.head.proj.weight", "o i -> i o"),)
