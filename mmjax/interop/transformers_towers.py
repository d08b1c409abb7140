"""Mapping of transformers' two-tower models: CLIPModel, SiglipModel, and Siglip2Model for images of any shape."""

import math
from typing import Any

from mmjax.encoders import TextConfig, ViTConfig
from mmjax.interop.architecture import Architecture, Entries, changed_towers, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, under
from mmjax.interop.transformers_parts import (
  CONVOLUTION,
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
from mmjax.models import TwoTowerConfig


def clip_rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of CLIPModel."""
  return joined(
    under("image/", "vision_model.", clip_image(_vit(config))),
    under("text/", "text_model.", TEXT),
    linear("^image_projection", "visual_projection"),
    linear("^text_projection", "text_projection"),
    (Rule("^logit_scale$", "logit_scale"),),
  )


def siglip_rules(config: TwoTowerConfig, patch_layout: str = CONVOLUTION) -> tuple[Rule, ...]:
  """Mapping rules of SiglipModel. `patch_layout` is the layout of the patch embedding's kernel."""
  return joined(
    under("image/", "vision_model.", siglip_image(_vit(config), patch_layout)),
    under("text/", "text_model.", TEXT),
    linear("^text_projection", "text_model.head"),
    (Rule("^logit_scale$", "logit_scale", "1 ->"), Rule("^logit_bias$", "logit_bias", "1 ->")),
  )


def siglip2_rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of Siglip2Model."""
  return siglip_rules(config, LINEAR)


def _vit(config: TwoTowerConfig) -> ViTConfig:
  assert isinstance(config.image, ViTConfig)
  return config.image


def read_clip(fields: Fields, entries: Entries) -> TwoTowerConfig:
  """Read the configuration of CLIPModel. The tensors are not needed."""
  del entries
  return TwoTowerConfig(
    image=read_clip_image(clip_part(fields, "vision_config")),
    text=read_clip_text(clip_part(fields, "text_config")),
    embed_dim=fields.integer("projection_dim", 512),
    init_logit_scale=math.exp(min(20.0, fields.number("logit_scale_init_value", 2.6592))),
    max_logit_scale=math.inf,
  )


def write_clip(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a two-tower model with a ViT."""
  image, text = _towers(config, "CLIPModel")
  return {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": config.embed_dim,
    "logit_scale_init_value": math.log(config.init_logit_scale),
    "vision_config": {"model_type": "clip_vision_model", "projection_dim": config.embed_dim} | write_vision(image),
    "text_config": {"model_type": "clip_text_model", "projection_dim": config.embed_dim} | write_clip_text(text),
  }


def read_siglip(fields: Fields, entries: Entries) -> TwoTowerConfig:
  """Read the configuration of SiglipModel. The tensors are not needed."""
  vision = fields.object("vision_config")
  return _read_siglip(fields, vision, read_siglip_image(vision, vision.square("image_size", 224)))


def read_siglip2(fields: Fields, entries: Entries) -> TwoTowerConfig:
  """Read the configuration of Siglip2Model. The tensors are not needed."""
  vision = fields.object("vision_config")
  return _read_siglip(fields, vision, read_siglip2_image(vision))


def _read_siglip(fields: Fields, vision: Fields, image: ViTConfig) -> TwoTowerConfig:
  text = fields.object("text_config")
  vision.only("vision_use_head", True, True)
  if text.integer("projection_size", text.integer("hidden_size", 768)) != image.width:
    raise text.wrong("projection_size", f"the vision tower's hidden_size, {image.width}")
  return TwoTowerConfig(
    image=image,
    text=read_siglip_text(text),
    embed_dim=image.width,
    image_projection="none",
    text_projection="affine",
    init_logit_scale=10.0,
    max_logit_scale=math.inf,
    init_logit_bias=-10.0,
  )


def write_siglip(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a two-tower model with a ViT."""
  image, text = _towers(config, "SiglipModel")
  return {
    "architectures": ["SiglipModel"],
    "model_type": "siglip",
    "vision_config": {"model_type": "siglip_vision_model"} | write_vision(image),
    "text_config": {"model_type": "siglip_text_model", "projection_size": config.embed_dim, "eos_token_id": text.eos_id}
    | write_text(text),
  }


def write_siglip2(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a two-tower model with a ViT."""
  fields = write_siglip(config)
  image = config.image
  del fields["vision_config"]["image_size"]
  fields["vision_config"] |= {"model_type": "siglip2_vision_model", "num_patches": image.grid**2}
  fields["text_config"] |= {"model_type": "siglip2_text_model"}
  return fields | {"architectures": ["Siglip2Model"], "model_type": "siglip2"}


def nearest_siglip(config: TwoTowerConfig) -> TwoTowerConfig:
  """Change a model to one with the tensors of SiglipModel."""
  projections: dict[str, Any] = dict(image_projection="none", text_projection="affine")
  width = config.image.pooled_width if config.image_projection == "none" else _vit(config).width
  return changed_towers(config, dict(stem="patch", pool="map", class_position=False), embed_dim=width, **projections)


def clip_part(fields: Fields, name: str) -> Fields:
  """Configuration of one tower. Early CLIP files also have text_config_dict, which then replaces text_config."""
  older = f"{name}_dict"
  fields.get(name)
  return fields.object(older if older in fields else name)


def _towers(config: Any, name: str) -> tuple[ViTConfig, TextConfig]:
  if not isinstance(config, TwoTowerConfig):
    raise wrong_kind(name, "a vision transformer beside a text transformer", config)
  for tower, kind in ((config.image, ViTConfig), (config.text, TextConfig)):
    if not isinstance(tower, kind):
      raise wrong_kind(name, "a vision transformer beside a text transformer", tower)
  image, text = config.image, config.text
  assert isinstance(image, ViTConfig) and isinstance(text, TextConfig)
  return image, text


CLIP = Architecture("CLIPModel", read_clip, write_clip, clip_rules, IGNORED)
SIGLIP = Architecture("SiglipModel", read_siglip, write_siglip, siglip_rules, IGNORED, nearest=nearest_siglip)
SIGLIP2 = Architecture(
  "Siglip2Model",
  read_siglip2,
  write_siglip2,
  siglip2_rules,
  IGNORED,
  nearest=nearest_siglip,
  resampling="bilinear",
)
