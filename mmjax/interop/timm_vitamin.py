"""ViTamin, hybrids of convolutions and a transformer, in timm's names (Chen et al. 2024)."""

import dataclasses
from typing import Any

from mmjax.encoders import ViTConfig
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, under
from mmjax.interop.timm_tower import head_rules, read_vit, vit_name, written
from mmjax.models import TwoTowerConfig
from mmjax.models.shared_space import Projection

_SIZES = {
  "small": dict(width=384, depth=14, num_heads=6, mlp_dim=768, stem_width=64),
  "base": dict(width=768, depth=14, num_heads=12, mlp_dim=1536, stem_width=128),
  "large": dict(width=1024, depth=31, num_heads=16, mlp_dim=2048, stem_width=160),
  "xlarge": dict(width=1152, depth=32, num_heads=16, mlp_dim=2304, stem_width=192, positions="none"),
}
_SIZES["large2"] = _SIZES["large"]  # beside a larger text tower
_NAMES = [("small", 224), ("base", 224)]
_NAMES += [(size, side) for size in ("large", "large2") for side in (224, 256, 336, 384)]
_NAMES += [("xlarge", side) for side in (256, 336, 384)]


def _tower(size: str, side: int) -> ViTConfig:
  fields: Any = _SIZES[size]
  return ViTConfig(
    image_size=side,
    patch_size=16,
    stem="mbconv",
    pool="mean",
    norm_after_pool=True,
    mlp_gated=True,
    mlp_input_norm=True,
    **fields,
  )


TOWERS = {f"vitamin_{size}_{side}": _tower(size, side) for size, side in _NAMES}
"""The towers by their names in timm."""


def has(config: TwoTowerConfig) -> bool:
  """True for a ViT with the stem of ViTamin."""
  return isinstance(config.image, ViTConfig) and config.image.stem == "mbconv"


def read(vision: Fields, embed_dim: int) -> tuple[ViTConfig, Projection]:
  """Read the image tower from vision_cfg. Raises InteropError for a setting that mmjax does not read."""
  tower = TOWERS[vision.text("timm_model_name")]
  if tower.positions == "none":  # it takes images of any size, and open_clip resizes them to image_size
    tower = dataclasses.replace(tower, image_size=vision.square("image_size", 224))
  return read_vit(vision, tower, embed_dim, pools=("avg", ""))  # "": timm's own choice, the average


def write(config: TwoTowerConfig) -> dict[str, Any]:
  """Write vision_cfg. Raises InteropError if timm has no tower of this size."""
  return written(config, vit_name(config.image, TOWERS), pool="")


def rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of the image tower and of the projection of the image."""
  return joined(under("image/", "visual.", _TOWER), head_rules(config.image_projection))


def _conv(ours: str, theirs: str, layout: str) -> tuple[Rule, Rule]:
  return Rule(f"{ours}/kernel$", f"{theirs}.weight", layout), Rule(f"{ours}/bias$", f"{theirs}.bias")


_FULL, _POINT, _DEPTHWISE = "o i y x -> y x i o", "o i 1 1 -> i o", "c 1 y x -> y x c"
_BACKBONE = "trunk.patch_embed.backbone"


def _stage(stage: int) -> tuple[Rule, ...]:
  ours, theirs = rf"stem/stage_{stage}_block_(\d+)", rf"{_BACKBONE}.stages.{stage - 1}.\1"
  return joined(
    norm(f"{ours}/norm", f"{theirs}.pre_norm"),
    _conv(f"{ours}/conv_up", f"{theirs}.conv1_1x1", _POINT),
    _conv(f"{ours}/conv_depthwise", f"{theirs}.conv2_kxk", _DEPTHWISE),
    _conv(f"{ours}/conv_down", f"{theirs}.conv3_1x1", _POINT),
    _conv(f"{ours}/conv_skip", f"{theirs}.shortcut.expand", _POINT),
  )


_STEM = joined(
  _conv("stem/conv_1", f"{_BACKBONE}.stem.conv1", _FULL),
  norm("stem/norm_1", f"{_BACKBONE}.stem.norm1"),
  _conv("stem/conv_2", f"{_BACKBONE}.stem.conv2", _FULL),
  _stage(1),
  _stage(2),
  norm("stem/norm_3", f"{_BACKBONE}.pool.norm"),
  _conv("stem/conv_3", f"{_BACKBONE}.pool.proj", _FULL),
)
_BLOCK = (r"transformer/block_(\d+)/", r"trunk.blocks.\1.")
_TOWER = joined(
  _STEM,
  *(linear(f"{_BLOCK[0]}attention/{n}", f"{_BLOCK[1]}attn.qkv", i) for i, n in enumerate(("query", "key", "value"))),
  linear(f"{_BLOCK[0]}attention/out", f"{_BLOCK[1]}attn.proj"),
  norm(f"{_BLOCK[0]}norm1", f"{_BLOCK[1]}norm1"),
  norm(f"{_BLOCK[0]}norm2", f"{_BLOCK[1]}norm2"),
  norm(f"{_BLOCK[0]}mlp/input_norm", f"{_BLOCK[1]}mlp.norm"),
  *(linear(f"{_BLOCK[0]}mlp/{ours}", f"{_BLOCK[1]}mlp.w{n}") for n, ours in enumerate(("gate", "up", "down"))),
  norm("norm", "trunk.fc_norm"),
  (Rule("position_embedding$", "trunk.pos_embed", "1 t d -> t d"),),
)
