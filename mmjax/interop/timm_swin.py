"""Swin transformers in timm's names (Liu et al. 2021)."""

import dataclasses
from typing import Any

from mmjax.encoders import SwinConfig
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches, under
from mmjax.interop.timm_tower import head_rules, read_vit, written
from mmjax.models import TwoTowerConfig
from mmjax.models.shared_space import Projection

TOWERS = {
  "swin_base_patch4_window7_224": SwinConfig(width=128, layers=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
}
"""The towers by their names in timm."""


def has(config: TwoTowerConfig) -> bool:
  """True for a Swin transformer."""
  return isinstance(config.image, SwinConfig)


def read(vision: Fields, embed_dim: int) -> tuple[SwinConfig, Projection]:
  """Read the image tower from vision_cfg. Raises InteropError for a setting that mmjax does not read."""
  return read_vit(vision, TOWERS[vision.text("timm_model_name")], embed_dim, pools=("avg", ""))


def write(config: TwoTowerConfig) -> dict[str, Any]:
  """Write vision_cfg. Raises InteropError if timm has no tower of this size."""
  name = next((name for name, tower in TOWERS.items() if _size(tower) == _size(config.image)), None)
  if name is None:
    raise InteropError(
      f"open_clip takes Swin transformers from timm, of which mmjax writes {', '.join(TOWERS)}. Use "
      'format="mmjax" (--to mmjax), which holds every model'
    )
  return written(config, name, pool="")


def _size(c: Any) -> tuple[Any, ...]:
  return c.image_size, c.patch_size, c.width, c.layers, c.num_heads, c.window_size


def rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of the image tower and of the projection of the image."""
  assert isinstance(config.image, SwinConfig)
  affine = config.image_projection == "affine"
  head = linear("^image_projection", "visual.trunk.head.fc") if affine else head_rules(config.image_projection)
  return joined(under("image/", "visual.", _trunk(config.image)), head)


_BLOCK = joined(
  (Rule("relative_bias/table$", "attn.relative_position_bias_table"),),
  *(linear(f"block/attention/{name}", "attn.qkv", part) for part, name in enumerate(("query", "key", "value"))),
  linear("block/attention/out", "attn.proj"),
  norm("block/norm1", "norm1"),
  norm("block/norm2", "norm2"),
  linear("block/mlp/up", "mlp.fc1"),
  linear("block/mlp/down", "mlp.fc2"),
)


def _trunk(c: SwinConfig) -> tuple[Rule, ...]:
  ours, theirs = r"stage_(\d+)_block_(\d+)/", r"trunk.layers.\1.blocks.\2."
  return joined(
    patches("stem/projection", "trunk.patch_embed.proj", c.patch_size),
    norm("stem_norm", "trunk.patch_embed.norm"),
    (dataclasses.replace(rule, ours=ours + rule.ours, theirs=theirs + rule.theirs) for rule in _BLOCK),
    norm(r"stage_(\d+)_merge/norm", r"trunk.layers.\1.downsample.norm"),
    (Rule(r"stage_(\d+)_merge/projection/kernel$", r"trunk.layers.\1.downsample.reduction.weight", "o i -> i o"),),
    norm("norm", "trunk.norm"),
  )
