"""Mapping of OpenAI's CLIP. Its files have no configuration. Its tensor names are those of open_clip."""

import dataclasses
import math
from typing import Any

import numpy as np

from mmjax.encoders import ResNetConfig, TextConfig, ViTConfig
from mmjax.interop.architecture import Architecture, Entries, changed_towers, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.open_clip import rules
from mmjax.interop.open_clip_towers import BUFFERS
from mmjax.models import TwoTowerConfig

OWN = ("input_resolution", "context_length", "vocab_size")
"""Buffers of OpenAI's files. Files of open_clip with the same names of weights do not have them."""


def read(fields: Fields, entries: Entries) -> TwoTowerConfig:
  """Derive the configuration from the tensor shapes.

  Fields that the shapes do not determine are the same in all of OpenAI's models.
  """
  del fields
  shape = {name: entry.shape for name, entry in entries.items()}
  embed_dim, width = shape["text_projection"][1], shape["ln_final.weight"][0]
  vocab, length = shape["token_embedding.weight"][0], shape["positional_embedding"][0]
  return TwoTowerConfig(
    image=_vit(shape) if "visual.proj" in shape else _resnet(shape, embed_dim),
    text=TextConfig(
      width=width,
      depth=_count(shape, "transformer.resblocks."),
      num_heads=max(1, width // 64),
      vocab_size=vocab,
      max_length=length,
      pool="argmax",
      eos_id=2,
      mask_padding=False,
      activation="quick_gelu",
      norm_epsilon=1e-5,
    ),
    embed_dim=embed_dim,
    image_projection="linear" if "visual.proj" in shape else "none",
    max_logit_scale=math.inf,
  )


def _vit(shape: dict[str, tuple[int, ...]]) -> ViTConfig:
  width, patch_size = shape["visual.conv1.weight"][0], shape["visual.conv1.weight"][-1]
  return ViTConfig(
    width=width,
    depth=_count(shape, "visual.transformer.resblocks."),
    num_heads=max(1, width // 64),
    image_size=patch_size * math.isqrt(max(1, shape["visual.positional_embedding"][0] - 1)),
    patch_size=patch_size,
    activation="quick_gelu",
    norm_epsilon=1e-5,
    pool="cls",
    input_norm=True,
    class_position=True,
    stem_bias=False,
  )


def _resnet(shape: dict[str, tuple[int, ...]], embed_dim: int) -> ResNetConfig:
  width = shape["visual.layer1.0.conv1.weight"][0]
  first, second, third, fourth = (_count(shape, f"visual.layer{stage}.") for stage in (1, 2, 3, 4))
  return ResNetConfig(
    image_size=32 * math.isqrt(max(1, shape["visual.attnpool.positional_embedding"][0] - 1)),
    layers=(first, second, third, fourth),
    width=width,
    num_heads=width * 32 // 64,
    output_dim=embed_dim,
    norm="frozen",
  )


def _count(names: dict[str, Any], prefix: str) -> int:
  """Count the numbered layers after a prefix."""
  return len({name.removeprefix(prefix).split(".")[0] for name in names if name.startswith(prefix)})


def write(config: Any) -> dict[str, Any]:
  """Return an empty dictionary, because OpenAI's files have no configuration.

  Raises: InteropError: the model is not a two-tower model.
  """
  if not isinstance(config, TwoTowerConfig):
    raise wrong_kind("OpenAI's CLIP", "an image tower beside a text transformer", config)
  for tower, kinds in ((config.image, ViTConfig | ResNetConfig), (config.text, TextConfig)):
    if not isinstance(tower, kinds):
      raise wrong_kind("OpenAI's CLIP", "a ViT or a ResNet beside a text transformer", tower)
  return {}


def nearest(config: TwoTowerConfig) -> TwoTowerConfig:
  """Change a model to one with the tensors of OpenAI's CLIP."""
  if isinstance(config.image, ResNetConfig):
    resnet = dataclasses.replace(config.image, output_dim=config.embed_dim)
    return dataclasses.replace(config, image=resnet, image_projection="none", text_projection="linear")
  image = dict(stem="patch", pool="cls", class_position=True)
  return changed_towers(config, image, image_projection="linear", text_projection="linear")


def buffers(config: TwoTowerConfig) -> dict[str, np.ndarray]:
  """Numbers that OpenAI's files hold beside the weights."""
  text = config.text
  assert isinstance(config.image, ViTConfig | ResNetConfig) and isinstance(text, TextConfig)
  values = (config.image.image_size, text.max_length, text.vocab_size)
  return {name: np.array(value, np.int64) for name, value in zip(OWN, values, strict=True)}


OPENAI = Architecture("OpenAI's CLIP", read, write, rules, BUFFERS, nearest=nearest)
