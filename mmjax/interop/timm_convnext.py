"""ConvNeXt image towers that open_clip takes from timm."""

import dataclasses
from typing import Any

from mmjax.encoders import ConvNeXtConfig
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, convolution, joined, linear, norm, patches, under
from mmjax.models import TwoTowerConfig
from mmjax.models.shared_space import Projection

TOWERS: dict[str, ConvNeXtConfig] = {
  "convnext_tiny": ConvNeXtConfig(),
  "convnext_small": ConvNeXtConfig(layers=(3, 3, 27, 3)),
  "convnext_base": ConvNeXtConfig(layers=(3, 3, 27, 3), width=128),
  "convnext_large": ConvNeXtConfig(layers=(3, 3, 27, 3), width=192),
  "convnext_xlarge": ConvNeXtConfig(layers=(3, 3, 27, 3), width=256),
  "convnext_xxlarge": ConvNeXtConfig(layers=(3, 4, 30, 3), width=384, norm_epsilon=1e-5),
}
"""The ConvNeXt of timm that mmjax reads, by their names there. They take images of any size that fits the strides."""

_PROJECTIONS: dict[Any, Projection] = {
  "linear": "linear",
  "mlp": "linear",
  "none": "none",
  None: "affine",
  "": "affine",
}


def has(config: TwoTowerConfig) -> bool:
  """True for a ConvNeXt."""
  return isinstance(config.image, ConvNeXtConfig)


def read(vision: Fields, embed_dim: int) -> tuple[ConvNeXtConfig, Projection]:
  """Read the image tower from a vision_cfg whose timm_model_name is in TOWERS.

  Args:
    vision: vision_cfg.
    embed_dim: dimension of the embeddings.
  Returns: (configuration, projection of the image).
  Raises: InteropError: mmjax does not read a setting of this tower.
  """
  tower = TOWERS[vision.text("timm_model_name")]
  head = vision.get("timm_proj", "linear")
  if head not in _PROJECTIONS:
    raise vision.wrong("timm_proj", 'one of "linear", "mlp", "none" or null')
  if head in ("linear", "mlp"):
    vision.only("timm_proj_bias", False, False)
    vision.choice("timm_pool", {"": "avg", "avg": "avg"}, "avg")  # "": timm's default, which is the mean
  else:
    vision.only("timm_pool", "avg", "avg")
  if head == "none" and tower.features != embed_dim:
    raise InteropError(f"{vision.where}: the tower gives {tower.features} numbers, and embed_dim is {embed_dim}")
  hidden = 2 * embed_dim if head == "mlp" else None
  tower = dataclasses.replace(tower, image_size=vision.square("image_size", 224), pool_hidden=hidden)
  return tower, _PROJECTIONS[head]


def write(config: TwoTowerConfig) -> dict[str, Any]:
  """Write vision_cfg. Raises InteropError if timm has no ConvNeXt of this size."""
  assert isinstance(config.image, ConvNeXtConfig)
  mine = _size(config.image)
  name = next((name for name, tower in TOWERS.items() if _size(tower) == mine), None)
  if name is None:
    raise InteropError(
      "open_clip takes ConvNeXt from timm, of which mmjax writes the sizes (layers, width, norm_epsilon) "
      f'{", ".join(f"{n}: {_size(t)}" for n, t in TOWERS.items())}. Use format="mmjax" (--to mmjax), which holds every '
      "model"
    )
  heads = {"linear": "linear" if config.image.pool_hidden is None else "mlp", "none": "none", "affine": None}
  head = heads[config.image_projection]
  cfg = {"image_size": config.image.image_size, "timm_model_name": name, "timm_model_pretrained": False}
  return cfg | {"timm_pool": "" if head in ("linear", "mlp") else "avg", "timm_proj": head}


def _size(c: ConvNeXtConfig) -> tuple[Any, ...]:
  return c.layers, c.width, c.norm_epsilon


def rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of the tower and of the projection of the image."""
  assert isinstance(config.image, ConvNeXtConfig)
  head = "head.proj" if config.image.pool_hidden is None else "head.mlp.fc2"
  tower = joined(_trunk(config.image), linear("pool_projection", "head.mlp.fc1"))
  return joined(
    under("image/", "visual.", tower),
    linear("^image_projection", "visual." + ("trunk.head.fc" if config.image_projection == "affine" else head)),
  )


def _trunk(c: ConvNeXtConfig) -> tuple[Rule, ...]:
  stage = (r"stage_(\d)_", r"trunk.stages.\1.")
  block = (rf"{stage[0]}block_(\d+)/", rf"{stage[1]}blocks.\2.")
  return joined(
    convolution(f"{block[0]}depthwise", f"{block[1]}conv_dw"),
    norm(f"{block[0]}norm", f"{block[1]}norm"),
    linear(f"{block[0]}mlp/up", f"{block[1]}mlp.fc1"),
    linear(f"{block[0]}mlp/down", f"{block[1]}mlp.fc2"),
    (Rule(f"{block[0]}scale/scale$", f"{block[1]}gamma"),),
    norm(f"{stage[0]}norm", f"{stage[1]}downsample.0"),
    patches(f"{stage[0]}downsample/projection", f"{stage[1]}downsample.1", 2),
    patches("stem/projection", "trunk.stem.0", c.patch_size),
    norm("stem_norm", "trunk.stem.1"),
    norm("norm", "trunk.head.norm"),
  )
