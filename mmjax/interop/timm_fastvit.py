"""FastViT image towers that open_clip takes from timm: MobileCLIP S1 and S2, MobileCLIP2 S0, S2, S3 and S4."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from mmjax.encoders import FastViTConfig
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, batch_norm, convolution, joined, linear, norm, under
from mmjax.models import TwoTowerConfig
from mmjax.models.shared_space import Projection

_LARGE: Any = dict(expansion=4, attention_stages=2, attention_norm="layer", squeeze_excite=False, stem_scale=False)
TOWERS: dict[str, FastViTConfig] = {
  "fastvit_mci0": FastViTConfig(norm="frozen"),
  "fastvit_mci1": FastViTConfig(layers=(4, 12, 20, 4), norm="frozen"),
  "fastvit_mci2": FastViTConfig(layers=(4, 12, 24, 4), width=80, norm="frozen"),
  "fastvit_mci3": FastViTConfig(layers=(2, 12, 24, 4, 2), width=96, norm="frozen", **_LARGE),
  "fastvit_mci4": FastViTConfig(layers=(2, 12, 24, 4, 4), width=128, norm="frozen", **_LARGE),
}
"""The FastViT of timm that mmjax reads, by their names there. They take images of any size that fits the strides."""


def has(config: TwoTowerConfig) -> bool:
  """True for a FastViT."""
  return isinstance(config.image, FastViTConfig)


def read(vision: Fields, embed_dim: int) -> tuple[FastViTConfig, Projection]:
  """Read the image tower from a vision_cfg whose timm_model_name is in TOWERS.

  Args:
    vision: vision_cfg.
    embed_dim: dimension of the embeddings.
  Returns: (configuration, projection of the image).
  Raises: InteropError: mmjax does not read a setting of this tower.
  """
  del embed_dim
  vision.only("timm_pool", "avg", "avg")
  if vision.get("timm_proj", "linear") is not None:
    vision.only("timm_proj", None, "linear")
  tower = TOWERS[vision.text("timm_model_name")]
  return dataclasses.replace(tower, image_size=vision.square("image_size", 224)), "affine"


def write(config: TwoTowerConfig) -> dict[str, Any]:
  """Write vision_cfg. Raises InteropError if timm has no FastViT of this size."""
  assert isinstance(config.image, FastViTConfig)
  mine = _size(config.image)
  name = next((name for name, tower in TOWERS.items() if _size(tower) == mine), None)
  if name is None:
    raise InteropError(
      "open_clip takes FastViT from timm, of which mmjax writes the sizes (layers, width) "
      f'{", ".join(f"{n}: {_size(t)[:2]}" for n, t in TOWERS.items())}. Use format="mmjax" (--to mmjax), which holds '
      "every model"
    )
  cfg = {"image_size": config.image.image_size, "timm_model_name": name, "timm_model_pretrained": False}
  return cfg | {"timm_pool": "avg", "timm_proj": None}


def _size(c: FastViTConfig) -> tuple[Any, ...]:
  names = ("layers", "width", "expansion", "attention_stages", "attention_norm", "squeeze_excite", "stem_scale")
  return tuple(getattr(c, name) for name in names)


def rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of the tower and of the projection of the image."""
  assert isinstance(config.image, FastViTConfig)
  return joined(
    under("image/", "visual.trunk.", _tower(config.image)), linear("^image_projection", "visual.trunk.head.fc")
  )


def _tower(c: FastViTConfig) -> tuple[Rule, ...]:
  stem = (r"stem_(\d)", r"stem.\1")
  return joined(
    _branch("stem_2", 1, "stem.2.conv_kxk.0"),
    _branch(stem[0], 3, f"{stem[1]}.conv_kxk.0"),
    _branch(stem[0], 1, f"{stem[1]}.conv_scale"),
    batch_norm("stem_2/norm_skip", "stem.2.identity"),
    *(_stage(c, stage) for stage in range(len(c.layers))),
    _branch("last", 3, "final_conv.conv_kxk.0"),
    _branch("last", 1, "final_conv.conv_scale"),
    _squeeze("last_squeeze_excite", "final_conv.se"),
  )


def _branch(ours: str, size: int, theirs: str) -> tuple[Rule, ...]:
  """Rules of one branch: a convolution without bias, and batch norm."""
  return joined(convolution(f"{ours}/conv_{size}", f"{theirs}.conv"), batch_norm(f"{ours}/norm_{size}", f"{theirs}.bn"))


def _pointwise(ours: str, theirs: str) -> tuple[Rule, Rule]:
  """Rules of a linear layer that PyTorch has as a 1x1 convolution."""
  kernel = Rule(f"{ours}/kernel$", f"{theirs}.weight", "o i 1 1 -> i o")
  return kernel, Rule(f"{ours}/bias$", f"{theirs}.bias")


def _squeeze(ours: str, theirs: str) -> tuple[Rule, ...]:
  return joined(_pointwise(f"{ours}/conv_squeeze", f"{theirs}.fc1"), _pointwise(f"{ours}/conv_excite", f"{theirs}.fc2"))


def _stage(c: FastViTConfig, stage: int) -> tuple[Rule, ...]:
  ours, theirs = f"stage_{stage}_", f"stages.{stage}."
  down = (f"{ours}downsample/", f"{theirs}downsample.proj.")
  block = (rf"{ours}block_(\d+)/", rf"{theirs}blocks.\1.")
  mixing = _attention(c, *block) if c.has_attention(stage) else _mixer(*block)
  scale2 = "layer_scale_2" if c.has_attention(stage) else "layer_scale"
  return joined(
    _branch(f"{down[0]}large", 7, f"{down[1]}0.large_conv"),
    _branch(f"{down[0]}large", 3, f"{down[1]}0.small_conv"),
    _squeeze(f"{down[0]}squeeze_excite", f"{down[1]}0.se"),
    _branch(f"{down[0]}pointwise", 1, f"{down[1]}1.conv_kxk.0"),
    batch_norm(f"{down[0]}pointwise/norm_skip", f"{down[1]}1.identity"),
    convolution(f"{ours}conv_positions", f"{theirs}pos_emb.pos_enc"),
    mixing,
    _branch(f"{block[0]}conv_mlp/spatial", 7, f"{block[1]}mlp.conv"),
    _pointwise(f"{block[0]}conv_mlp/mlp/up", f"{block[1]}mlp.fc1"),
    _pointwise(f"{block[0]}conv_mlp/mlp/down", f"{block[1]}mlp.fc2"),
    _scale(f"{block[0]}scale2", f"{block[1]}{scale2}"),
  )


def _mixer(ours: str, theirs: str) -> tuple[Rule, ...]:
  """Rules of what is RepMixer's own in a block."""
  theirs = f"{theirs}token_mixer."
  return joined(
    _branch(f"{ours}mixer", 3, f"{theirs}mixer.conv_kxk.0"),
    _branch(f"{ours}mixer", 1, f"{theirs}mixer.conv_scale"),
    batch_norm(f"{ours}mixer/norm_skip", f"{theirs}mixer.identity"),
    batch_norm(f"{ours}mixer_norm", f"{theirs}norm.identity"),
    _scale(f"{ours}scale1", f"{theirs}layer_scale"),
  )


def _attention(c: FastViTConfig, ours: str, theirs: str) -> tuple[Rule, ...]:
  """Rules of what is attention's own in a block."""
  return joined(
    *(
      linear(f"{ours}attention/{name}", f"{theirs}token_mixer.qkv", part)
      for part, name in enumerate(("query", "key", "value"))
    ),
    linear(f"{ours}attention/out", f"{theirs}token_mixer.proj"),
    (norm if c.attention_norm == "layer" else batch_norm)(f"{ours}norm", f"{theirs}norm"),
    _scale(f"{ours}scale1", f"{theirs}layer_scale_1"),
  )


def _scale(ours: str, theirs: str) -> Iterator[Rule]:
  yield Rule(f"{ours}/scale$", f"{theirs}.gamma", "d 1 1 -> d")
