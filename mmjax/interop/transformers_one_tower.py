"""Mapping of transformers' single towers of CLIP and SigLIP, with their projections where the class has one.

A tower without a projection is a ViT or a text transformer. A tower with one is a SharedSpace of a single tower.
transformers 5 writes the tensors of some of these classes without the prefix "vision_model." or "text_model.", and
transformers 4 with it. Both are read. The longer names are written, because both versions read them.
"""

import dataclasses
from typing import Any

from mmjax.encoders import NaFlexConfig, TextConfig, ViTConfig
from mmjax.encoders.config import TowerConfig
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, under
from mmjax.interop.transformers_parts import (
  IGNORED,
  LINEAR,
  TEXT,
  clip_image,
  read_clip_image,
  read_clip_text,
  read_siglip2_image,
  read_siglip_image,
  read_siglip_text,
  siglip_image,
  write_clip_text,
  write_text,
  write_vision,
)
from mmjax.models import SharedSpaceConfig

_PARTS = r"^(embeddings|encoder|pre_layrnorm|post_layernorm|final_layer_norm|head)\."
_VISION, _TEXT = ((_PARTS, r"vision_model.\1."),), ((_PARTS, r"text_model.\1."),)
_ALT = (*_VISION, (r"\.encoder\.layer\.", ".encoder.layers."))  # transformers 5 writes AltCLIP's image tower so


def _projected(tower: TowerConfig, name: str, embed_dim: int, projection: Any = "linear") -> SharedSpaceConfig:
  """A tower with its projection."""
  return SharedSpaceConfig(towers={name: tower}, embed_dim=embed_dim, projection=projection, init_logit_scale=None)


def _tower(config: Any, name: str, kind: type, cls: str, wanted: str) -> Any:
  """The tower of a SharedSpace with this tower alone. Raises InteropError for another configuration."""
  if not isinstance(config, SharedSpaceConfig) or list(config.towers) != [name]:
    raise wrong_kind(cls, f"{wanted} with its projection", config)
  return _alone(config.towers[name], kind, cls, wanted)


def _alone(config: Any, kind: type, cls: str, wanted: str) -> Any:
  if not isinstance(config, kind):
    raise wrong_kind(cls, wanted, config)
  return config


def _named(cls: str, model_type: str) -> dict[str, Any]:
  return {"architectures": [cls], "model_type": model_type}


def _read_clip_image(fields: Fields, entries: Entries) -> ViTConfig:
  del entries
  return read_clip_image(fields)


def _write_clip_image(config: Any) -> dict[str, Any]:
  vit = _alone(config, ViTConfig, "CLIPVisionModel", "a vision transformer")
  return _named("CLIPVisionModel", "clip_vision_model") | write_vision(vit)


def _read_clip_text(fields: Fields, entries: Entries) -> TextConfig:
  del entries
  return read_clip_text(fields)


def _write_clip_text(config: Any) -> dict[str, Any]:
  text = _alone(config, TextConfig, "CLIPTextModel", "a text transformer")
  return _named("CLIPTextModel", "clip_text_model") | write_clip_text(text)


def _read_projected_image(fields: Fields, entries: Entries) -> SharedSpaceConfig:
  del entries
  return _projected(read_clip_image(fields), "image", fields.integer("projection_dim", 512))


def _write_projected_image(config: Any) -> dict[str, Any]:
  cls = "CLIPVisionModelWithProjection"
  vit = _tower(config, "image", ViTConfig, cls, "a vision transformer")
  return _named(cls, "clip_vision_model") | write_vision(vit) | {"projection_dim": config.embed_dim}


def _read_projected_text(fields: Fields, entries: Entries) -> SharedSpaceConfig:
  del entries
  return _projected(read_clip_text(fields), "text", fields.integer("projection_dim", 512))


def _write_projected_text(config: Any) -> dict[str, Any]:
  cls = "CLIPTextModelWithProjection"
  text = _tower(config, "text", TextConfig, cls, "a text transformer")
  return _named(cls, "clip_text_model") | write_clip_text(text) | {"projection_dim": config.embed_dim}


def _read_siglip_image(fields: Fields, entries: Entries) -> ViTConfig:
  del entries
  fields.only("vision_use_head", True, True)
  return read_siglip_image(fields, fields.square("image_size", 224))


def _write_siglip_image(config: Any) -> dict[str, Any]:
  vit = _alone(config, ViTConfig, "SiglipVisionModel", "a vision transformer")
  return _named("SiglipVisionModel", "siglip_vision_model") | write_vision(vit)


def _read_siglip2_image(fields: Fields, entries: Entries) -> NaFlexConfig:
  del entries
  fields.only("vision_use_head", True, True)
  return read_siglip2_image(fields)


def _write_siglip2_image(config: Any) -> dict[str, Any]:
  vit = _alone(config, ViTConfig, "Siglip2VisionModel", "a vision transformer")
  fields = _named("Siglip2VisionModel", "siglip2_vision_model") | write_vision(vit) | {"num_patches": vit.grid**2}
  del fields["image_size"]
  return fields


def _read_siglip_text(fields: Fields, entries: Entries) -> SharedSpaceConfig:
  del entries
  text = read_siglip_text(fields)
  return _projected(text, "text", fields.integer("projection_size", text.width), "affine")


def _write_siglip_text(config: Any, cls: str = "SiglipTextModel", kind: str = "siglip_text_model") -> dict[str, Any]:
  text = _tower(config, "text", TextConfig, cls, "a text transformer")
  return _named(cls, kind) | write_text(text) | {"projection_size": config.embed_dim, "eos_token_id": text.eos_id}


def _write_siglip2_text(config: Any) -> dict[str, Any]:
  return _write_siglip_text(config, "Siglip2TextModel", "siglip2_text_model")


def _clip_image_rules(config: ViTConfig) -> tuple[Rule, ...]:
  return under("", "vision_model.", clip_image(config))


def _clip_text_rules(config: TextConfig) -> tuple[Rule, ...]:
  del config
  return under("", "text_model.", TEXT)


def _projected_image_rules(config: Any) -> tuple[Rule, ...]:
  image = under("image/", "vision_model.", clip_image(config.towers["image"]))
  return joined(image, linear("^image_projection", "visual_projection"))


def _projected_text_rules(config: Any) -> tuple[Rule, ...]:
  del config
  return joined(under("text/", "text_model.", TEXT), linear("^text_projection", "text_projection"))


def _siglip_image_rules(config: ViTConfig) -> tuple[Rule, ...]:
  return under("", "vision_model.", siglip_image(config))


def _siglip2_image_rules(config: ViTConfig) -> tuple[Rule, ...]:
  return under("", "vision_model.", siglip_image(config, LINEAR))


def _siglip_text_rules(config: Any) -> tuple[Rule, ...]:
  del config
  return joined(under("text/", "text_model.", TEXT), linear("^text_projection", "text_model.head"))


CLIP_IMAGE = Architecture("CLIPVisionModel", _read_clip_image, _write_clip_image, _clip_image_rules, IGNORED, _VISION)
CHINESE_CLIP_IMAGE = dataclasses.replace(CLIP_IMAGE, name="ChineseCLIPVisionModel")
ALT_CLIP_IMAGE = dataclasses.replace(CLIP_IMAGE, name="AltCLIPVisionModel", renamed=_ALT)
CLIPSEG_IMAGE = dataclasses.replace(CLIP_IMAGE, name="CLIPSegVisionModel")
CLIP_TEXT = Architecture("CLIPTextModel", _read_clip_text, _write_clip_text, _clip_text_rules, IGNORED, _TEXT)
CLIP_IMAGE_PROJECTED = Architecture(
  "CLIPVisionModelWithProjection", _read_projected_image, _write_projected_image, _projected_image_rules, IGNORED
)
CLIP_TEXT_PROJECTED = Architecture(
  "CLIPTextModelWithProjection", _read_projected_text, _write_projected_text, _projected_text_rules, IGNORED
)
SIGLIP_IMAGE = Architecture(
  "SiglipVisionModel", _read_siglip_image, _write_siglip_image, _siglip_image_rules, IGNORED, _VISION
)
SIGLIP_TEXT = Architecture("SiglipTextModel", _read_siglip_text, _write_siglip_text, _siglip_text_rules, IGNORED, _TEXT)
SIGLIP2_IMAGE = Architecture(
  "Siglip2VisionModel",
  _read_siglip2_image,
  _write_siglip2_image,
  _siglip2_image_rules,
  IGNORED,
  _VISION,
  resampling="bilinear",
)
SIGLIP2_TEXT = Architecture(
  "Siglip2TextModel", _read_siglip_text, _write_siglip2_text, _siglip_text_rules, IGNORED, _TEXT
)
