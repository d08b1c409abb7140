"""EVA, EVA02 and the Perception Encoder (PE), vision transformers of timm's module `eva`.

Sources: EVA-CLIP (Sun et al. 2023), EVA-02 (Fang et al. 2023), PE (Bolya et al. 2025).
"""

from typing import Any

from mmjax.encoders import ViTConfig
from mmjax.interop.architecture import sides
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, patches, under
from mmjax.interop.timm_tower import MAP, POSITIONS, head_rules, in_blocks, norms, read_vit, vit_name, written
from mmjax.models import TwoTowerConfig
from mmjax.models.shared_space import Projection


def _eva(side: int, patch: int, width: int, depth: int, num_heads: int, **fields: Any) -> ViTConfig:
  common: Any = dict(pool="cls", class_position=True, attention_bias="query_value", **sides(side, patch))
  return ViTConfig(width=width, depth=depth, num_heads=num_heads, **common, **fields)


def _eva02(side: int, patch: int, width: int, depth: int, num_heads: int) -> ViTConfig:
  fields = dict(mlp_dim=width * 8 // 3, mlp_gated=True, mlp_norm=True, activation="silu", attention_norm=True)
  rotary = dict(rotary="patches", rotary_temperature=10_000.0, rotary_grid=16)
  return _eva(side, patch, width, depth, num_heads, **fields, **rotary)


def _pe(side: int, patch: int, width: int, depth: int, num_heads: int, **fields: Any) -> ViTConfig:
  common: Any = dict(pool="cls_map", class_position=True, input_norm=True, stem_bias=False, norm_epsilon=1e-5)
  common |= dict(map_heads=8, map_mlp_dim=4 * width, **sides(side, patch))
  common |= dict(rotary="patches", rotary_temperature=10_000.0, rotary_grid=side // patch, rotary_start=1.0)
  return ViTConfig(width=width, depth=depth, num_heads=num_heads, rotary_axes="xy", **common | fields)


_GIANT = _eva(224, 14, 1408, 40, 16, mlp_dim=6144)
TOWERS: dict[str, ViTConfig] = {
  "eva_giant_patch14_224": _GIANT,
  "eva_giant_patch14_clip_224": _GIANT,
  "eva02_base_patch16_clip_224": _eva02(224, 16, 768, 12, 12),
  "eva02_large_patch14_clip_224": _eva02(224, 14, 1024, 24, 16),
  "eva02_large_patch14_clip_336": _eva02(336, 14, 1024, 24, 16),
  "eva02_enormous_patch14_clip_224": _eva(224, 14, 1792, 64, 16, mlp_dim=15360, norm="branch"),
  "vit_pe_core_tiny_patch16_384": _pe(384, 16, 192, 12, 3),
  "vit_pe_core_small_patch16_384": _pe(384, 16, 384, 12, 6),
  "vit_pe_core_base_patch16_224": _pe(224, 16, 768, 12, 12),
  "vit_pe_core_large_patch14_336": _pe(336, 14, 1024, 24, 16),
  "vit_pe_core_gigantic_patch14_448": _pe(
    448, 14, 1536, 50, 16, mlp_dim=8960, pool="map", class_position=False, rotary_start=0.0
  ),
}
"""The towers by their names in timm."""

_POOLS = {"cls": "token", "map": "map", "cls_map": "map"}


def has(config: TwoTowerConfig) -> bool:
  """True for a ViT with rotary positions, or without a bias of the keys."""
  c = config.image
  return isinstance(c, ViTConfig) and (c.rotary != "none" or c.attention_bias == "query_value")


def read(vision: Fields, embed_dim: int) -> tuple[ViTConfig, Projection]:
  """Read the image tower from vision_cfg. Raises InteropError for a setting that mmjax does not read."""
  tower = TOWERS[vision.text("timm_model_name")]
  return read_vit(vision, tower, embed_dim, pools=(_POOLS[tower.pool],))


def write(config: TwoTowerConfig) -> dict[str, Any]:
  """Write vision_cfg. Raises InteropError if timm has no tower of this size."""
  name = vit_name(config.image, TOWERS)
  return written(config, name, pool=_POOLS[TOWERS[name].pool])


def rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of the image tower and of the projection of the image."""
  c = config.image
  assert isinstance(c, ViTConfig)
  tower = joined(
    in_blocks(_block(c)),
    patches("stem/projection", "trunk.patch_embed.proj", c.patch_size),
    norms(("transformer/input_norm", "trunk.norm_pre"), ("transformer/norm", "trunk.norm")),
    POSITIONS,
    MAP,
  )
  return joined(under("image/", "visual.", tower), head_rules(config.image_projection))


def _block(c: ViTConfig) -> tuple[Rule, ...]:
  """Rules of one block."""
  mlp = joined(linear("mlp/gate", "mlp.fc1_g"), linear("mlp/up", "mlp.fc1_x")) if c.mlp_gated else ()
  return joined(
    *(_projection(c, name, part) for part, name in enumerate(("query", "key", "value"))),
    linear("attention/out", "attn.proj"),
    norms(("attention/norm", "attn.norm"), ("norm1", "norm1"), ("norm2", "norm2"), ("mlp/norm", "mlp.norm")),
    mlp or linear("mlp/up", "mlp.fc1"),
    linear("mlp/down", "mlp.fc2"),
  )


def _projection(c: ViTConfig, name: str, part: int) -> tuple[Rule, Rule]:
  """Rules of the projection of queries, keys or values.

  PE stores the three as one matrix and one vector. The others have no bias of the keys: EVA02-B and -L store three
  matrices and two vectors, the larger ones one matrix and two vectors.
  """
  kernel, bias, part_of_bias = "attn.qkv.weight", f"attn.{name[0]}_bias", 0
  if c.attention_bias == "all":
    bias, part_of_bias = "attn.qkv.bias", part
  elif c.rotary != "none":
    kernel, bias, part = f"attn.{name[0]}_proj.weight", f"attn.{name[0]}_proj.bias", 0
  turned = c.rotary != "none" and name != "value"
  # timm rotates neighbouring features (2j, 2j + 1) of a head, mmjax features j and j + dim / 2.
  sizes = (("h", c.num_heads), ("two", 2)) if turned else ()
  layouts = ("(h j two) i -> i (h two j)", "(h j two) -> (h two j)") if turned else ("o i -> i o", "")
  return (
    Rule(f"attention/{name}/kernel$", kernel, layouts[0], sizes, part),
    Rule(f"attention/{name}/bias$", bias, layouts[1], sizes, part_of_bias),
  )
