"""SigLIP's vision transformers, CLIP's ViT-L/14, ViT-M/16 without a class token and MobileCLIP-B, in timm's names."""

import re
from typing import Any, Literal

from mmjax.encoders import ViTConfig
from mmjax.interop.architecture import sides
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, batch_norm, joined, linear, patches, under
from mmjax.interop.timm_tower import MAP, POSITIONS, head_rules, in_blocks, norms, read_vit, vit_name, written
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


_MEDIUM: Any = dict(width=512, depth=12, num_heads=8, mlp_dim=2048)
_CLIP_L: Any = _SIZES["large"] | sides(224, 14)
_MOBILECLIP_B: Any = _SIZES["base"] | sides(224, 16)
TOWERS: dict[str, ViTConfig] = {
  **{name: _siglip(name) for name in _SIGLIP},
  "vit_large_patch14_clip_224": ViTConfig(
    pool="cls", input_norm=True, class_position=True, stem_bias=False, norm_epsilon=1e-5, **_CLIP_L
  ),
  "vit_base_mci_224": ViTConfig(pool="cls", stem="mobileclip", stem_norm="frozen", norm_epsilon=1e-6, **_MOBILECLIP_B),
  "vit_relpos_medium_patch16_cls_224": ViTConfig(
    pool="cls", positions="offsets", attention_bias="none", layer_scale=1e-6, **_MEDIUM, **sides(224, 16)
  ),
  "vit_medium_patch16_gap_256": ViTConfig(
    pool="mean", attention_bias="none", layer_scale=1e-6, norm_epsilon=1e-6, **_MEDIUM, **sides(256, 16)
  ),
}
"""The towers by their names in timm."""

_POOLS = {"map": ("map",), "cls": ("token", ""), "mean": ("", "avg")}  # "": timm's own choice


def has(config: TwoTowerConfig) -> bool:
  """True for a ViT that timm has and open_clip's own towers are not.

  It has MAP pooling, a mean over patches beside attention without biases, MobileCLIP's stem, or a bias in its
  projection.
  """
  c = config.image
  if not isinstance(c, ViTConfig):
    return False
  pooled = c.pool == "map" or (c.pool, c.attention_bias) == ("mean", "none")
  return pooled or c.stem == "mobileclip" or c.positions == "offsets" or config.image_projection == "affine"


def read(vision: Fields, embed_dim: int) -> tuple[ViTConfig, Projection]:
  """Read the image tower from vision_cfg. Raises InteropError for a setting that mmjax does not read."""
  tower = TOWERS[vision.text("timm_model_name")]
  return read_vit(vision, tower, embed_dim, pools=_POOLS[tower.pool])


def write(config: TwoTowerConfig) -> dict[str, Any]:
  """Write vision_cfg. Raises InteropError if timm has no tower of this size."""
  assert isinstance(config.image, ViTConfig)
  name = vit_name(config.image, TOWERS)
  return written(config, name, pool=_POOLS[TOWERS[name].pool][0])


def rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of the image tower and of the projection of the image."""
  assert isinstance(config.image, ViTConfig)
  stem = patches("stem/projection", "trunk.patch_embed.proj", config.image.patch_size)
  tower = joined(
    in_blocks(_BLOCK),
    _NESTED_STEM if config.image.stem == "mobileclip" else stem,
    norms(("transformer/input_norm", "trunk.norm_pre"), ("transformer/norm", "trunk.norm")),
    POSITIONS,
    linear(r"offset_bias_(\d+)/up", r"trunk.blocks.\1.attn.rel_pos.mlp.fc1"),
    linear(r"offset_bias_(\d+)/down", r"trunk.blocks.\1.attn.rel_pos.mlp.fc2"),
    MAP,
  )
  return joined(under("image/", "visual.", tower), head_rules(config.image_projection))


_BLOCK = joined(
  *(linear(f"attention/{name}", "attn.qkv", part) for part, name in enumerate(("query", "key", "value"))),
  linear("attention/out", "attn.proj"),
  norms(("norm1", "norm1"), ("norm2", "norm2")),
  (Rule("scale1/scale$", "ls1.gamma"), Rule("scale2/scale$", "ls2.gamma")),
  linear("mlp/up", "mlp.fc1"),
  linear("mlp/down", "mlp.fc2"),
)
_BACKBONE = "trunk.patch_embed.backbone"
_NESTED_STEM = joined(
  patches("stem/conv_0", f"{_BACKBONE}.0.conv", 4),
  patches("stem/conv_1", f"{_BACKBONE}.1.conv", 2),
  batch_norm(r"stem/norm_(\d)", rf"{_BACKBONE}.\1.bn"),
  patches("stem/projection", f"{_BACKBONE}.2.conv", 2),
)
