"""Image towers that open_clip takes from timm: SigLIP's, CLIP's ViT-L/14 in timm's names, and ViTamin's."""

import dataclasses
import re
from typing import Any, Literal

from mmjax.encoders import ViTConfig
from mmjax.interop import timm_vitamin
from mmjax.interop.architecture import sides
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches
from mmjax.models import TwoTowerConfig
from mmjax.models.shared_space import Projection

_SIZES = {
  "base": dict(width=768, depth=12, num_heads=12, mlp_dim=3072),
  "large": dict(width=1024, depth=24, num_heads=16, mlp_dim=4096),
  "so400m": dict(width=1152, depth=27, num_heads=16, mlp_dim=4304),
  "giantopt": dict(width=1536, depth=40, num_heads=16, mlp_dim=6144),
}
# timm gives these the tanh approximation of GELU, and the others the exact one.
_TANH = re.compile(r"base_patch32|large_patch16_siglip_512|so400m_patch16|giantopt")
_SIGLIP = (
  "vit_base_patch32_siglip_256",
  *(f"vit_base_patch16_siglip_{side}" for side in (224, 256, 384, 512)),
  *(f"vit_large_patch16_siglip_{side}" for side in (256, 384, 512)),
  *(f"vit_so400m_patch14_siglip_{side}" for side in (224, 378, 384)),
  *(f"vit_so400m_patch16_siglip_{side}" for side in (256, 384, 512)),
  *(f"vit_giantopt_patch16_siglip_{side}" for side in (256, 384)),
)


def _siglip(name: str) -> ViTConfig:
  size, patch, side = re.fullmatch(r"vit_(\w+)_patch(\d+)_siglip_(\d+)", name).groups()  # type: ignore[union-attr]
  activation: Literal["gelu_tanh", "gelu"] = "gelu_tanh" if _TANH.search(name) else "gelu"
  fields: Any = _SIZES[size] | sides(int(side), int(patch))
  return ViTConfig(pool="map", activation=activation, norm_epsilon=1e-6, **fields)


_CLIP_L: Any = _SIZES["large"] | sides(224, 14)
TOWERS: dict[str, ViTConfig] = {
  **{name: _siglip(name) for name in _SIGLIP},
  "vit_large_patch14_clip_224": ViTConfig(
    pool="cls", input_norm=True, class_position=True, stem_bias=False, norm_epsilon=1e-5, **_CLIP_L
  ),
  **timm_vitamin.TOWERS,
}
"""The towers of timm that mmjax reads, by their names there."""

_KNOWN = {"timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj", "timm_drop", "timm_drop_path"}
_KNOWN |= {"image_size", "patch_dropout"}


def is_timm(config: TwoTowerConfig) -> bool:
  """True for a model whose image tower open_clip takes from timm.

  open_clip's own towers have no MAP pooling, no convolutions, and no bias in the projection of the image.
  """
  if not isinstance(config.image, ViTConfig):
    return False
  return config.image.pool == "map" or config.image.stem == "mbconv" or config.image_projection == "affine"


def read(vision: Fields, embed_dim: int) -> tuple[ViTConfig, Projection]:
  """Read the image tower from a vision_cfg with timm_model_name.

  Args:
    vision: vision_cfg.
    embed_dim: dimension of the embeddings.
  Returns: (configuration, projection of the image).
  Raises: InteropError: mmjax does not read this tower, or this setting of it.
  """
  name = vision.text("timm_model_name")
  if name not in TOWERS:
    raise InteropError(
      f"{vision.where}: timm_model_name is {name!r}; of timm's image towers, mmjax reads {', '.join(TOWERS)}"
    )
  vision.known(_KNOWN)
  tower = TOWERS[name]
  if tower.positions == "none":  # it takes images of any size, and open_clip resizes them to image_size
    tower = dataclasses.replace(tower, image_size=vision.square("image_size", 224))
  vision.only("image_size", tower.image_size, tower.image_size)
  if tower.stem == "mbconv":
    vision.choice("timm_pool", {"": True, "avg": True}, "avg")  # "": timm's own choice, the average
    vision.only("timm_proj", "linear", "linear")
    return tower, "linear"
  vision.only("timm_pool", {"map": "map", "cls": "token"}[tower.pool], "avg")
  if tower.pool == "map":
    vision.only("timm_proj", "none", "linear")
    if tower.pooled_width != embed_dim:
      raise InteropError(f"{vision.where}: {name} gives {tower.pooled_width} numbers, and embed_dim is {embed_dim}")
    return tower, "none"
  if vision.values.get("timm_proj", "linear") is not None:
    vision.only("timm_proj", None, "linear")
  return tower, "affine"


def write(config: TwoTowerConfig) -> dict[str, Any]:
  """Write vision_cfg. Raises InteropError if timm has no tower of this size."""
  assert isinstance(config.image, ViTConfig)
  mine = _size(config.image)
  name = next((name for name, tower in TOWERS.items() if _size(tower) == mine), None)
  if name is None:
    raise InteropError(
      "open_clip takes image towers with MAP pooling, convolutions or a bias in their projection from timm, which has "
      f'none of this size; it has {", ".join(TOWERS)}. Use format="mmjax" (--to mmjax), which holds every model'
    )
  pool, projection = ("map", "none") if config.image.pool == "map" else ("token", None)
  if config.image.stem == "mbconv":
    pool, projection = "", "linear"
  cfg = {"image_size": config.image.image_size, "timm_model_name": name, "timm_model_pretrained": False}
  return cfg | {"timm_pool": pool, "timm_proj": projection}


def _size(c: ViTConfig) -> tuple[Any, ...]:
  names = ("image_size", "patch_size", "width", "depth", "num_heads", "hidden", "activation", "pool", "stem")
  return tuple(getattr(c, name) for name in names)


def rules(c: Any) -> tuple[Rule, ...]:
  """Mapping rules of a tower (a ViTConfig) to the tensors under "visual."."""
  if c.stem == "mbconv":
    return timm_vitamin.RULES
  block = (r"transformer/block_(\d+)/", r"trunk.blocks.\1.")
  attention = (
    *(linear(f"attention/{name}", "attn.qkv", part) for part, name in enumerate(("query", "key", "value"))),
    linear("attention/out", "attn.proj"),
  )
  blocks = joined(
    *attention,
    norm("norm1", "norm1"),
    norm("norm2", "norm2"),
    linear("mlp/up", "mlp.fc1"),
    linear("mlp/down", "mlp.fc2"),
  )
  tower = joined(
    (dataclasses.replace(rule, ours=block[0] + rule.ours, theirs=block[1] + rule.theirs) for rule in blocks),
    patches("stem/projection", "trunk.patch_embed.proj", c.patch_size),
    norm("transformer/input_norm", "trunk.norm_pre"),
    norm("transformer/norm", "trunk.norm"),
  )
  return joined(tower, _MAP if c.pool == "map" else _CLASS_TOKEN)


def projection_rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of the projection of the image."""
  if config.image_projection == "affine":
    return linear("^image_projection", "visual.trunk.head")
  return (Rule("^image_projection/kernel$", "visual.head.proj.weight", "o i -> i o"),)


_POSITIONS = "trunk.pos_embed"
_CLASS_TOKEN = (
  Rule("class_token$", "trunk.cls_token", "1 1 d -> 1 d"),
  Rule("class_position$", _POSITIONS, "1 t d -> t d", part=0, axis=1),
  Rule("position_embedding$", _POSITIONS, "1 t d -> t d", part=1, axis=1),
)
_MAP = joined(
  (
    Rule("position_embedding$", _POSITIONS, "1 t d -> t d"),
    Rule("pool/probe$", "trunk.attn_pool.latent", "1 t d -> t d"),
  ),
  linear("pool/attention/query", "trunk.attn_pool.q"),
  linear("pool/attention/key", "trunk.attn_pool.kv", 0),
  linear("pool/attention/value", "trunk.attn_pool.kv", 1),
  linear("pool/attention/out", "trunk.attn_pool.proj"),
  norm("pool/norm", "trunk.attn_pool.norm"),
  linear("pool/mlp/up", "trunk.attn_pool.mlp.fc1"),
  linear("pool/mlp/down", "trunk.attn_pool.mlp.fc2"),
)
