"""Image towers that open_clip takes from timm."""

from typing import Any

from mmjax.encoders.config import TowerConfig
from mmjax.interop import timm_convnext, timm_eva, timm_fastvit, timm_vit, timm_vitamin
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule
from mmjax.interop.timm_tower import Family
from mmjax.models import TwoTowerConfig
from mmjax.models.shared_space import Projection

FAMILIES: tuple[Family, ...] = (timm_convnext, timm_fastvit, timm_vitamin, timm_eva, timm_vit)

_KNOWN = {"timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop"}
_KNOWN |= {"timm_drop_path", "image_size", "patch_dropout"}


def is_timm(config: TwoTowerConfig) -> bool:
  """True for a model whose image tower open_clip takes from timm."""
  return any(family.has(config) for family in FAMILIES)


def read(vision: Fields, embed_dim: int) -> tuple[TowerConfig, Projection]:
  """Read the image tower from a vision_cfg with timm_model_name.

  Args:
    vision: vision_cfg.
    embed_dim: dimension of the embeddings.
  Returns: (configuration, projection of the image).
  Raises: InteropError: mmjax does not read this tower, or this setting of it.
  """
  name = vision.text("timm_model_name")
  family = next((family for family in FAMILIES if name in family.TOWERS), None)
  if family is None:
    known = ", ".join(tower for family in FAMILIES for tower in family.TOWERS)
    raise InteropError(f"{vision.where}: timm_model_name is {name!r}; of timm's image towers, mmjax reads {known}")
  vision.known(_KNOWN)
  return family.read(vision, embed_dim)


def write(config: TwoTowerConfig) -> dict[str, Any]:
  """Write vision_cfg. Raises InteropError if timm has no tower of this size."""
  return _family(config).write(config)


def rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of the image tower and of the projection of the image."""
  return _family(config).rules(config)


def _family(config: TwoTowerConfig) -> Family:
  return next(family for family in FAMILIES if family.has(config))
