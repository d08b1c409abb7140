"""Mapping of transformers' two-tower models of CLIP's image tower and another text encoder.

These are ChineseCLIPModel (BERT) and AltCLIPModel (XLM-RoBERTa).
"""

import dataclasses
import math
from typing import Any

from mmjax.encoders import TextConfig, ViTConfig
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, under
from mmjax.interop.transformers_parts import clip_image, read_clip_image, write_vision
from mmjax.interop.transformers_single import HEADS, bert_rules, read_bert, write_bert
from mmjax.interop.transformers_texts import read_roberta, roberta_rules, write_roberta
from mmjax.interop.transformers_towers import clip_part
from mmjax.models import TwoTowerConfig

PROJECTIONS = joined(
  linear("^image_projection", "visual_projection"),
  linear("^text_projection", "text_projection"),
  (Rule("^logit_scale$", "logit_scale"),),
)
"""Rules of the parts of CLIP that are not in a tower."""


def chinese_clip_rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of ChineseCLIPModel."""
  image, text = towers(config, "ChineseCLIPModel")
  return joined(
    under("image/", "vision_model.", clip_image(image)),
    under("text/", "text_model.", bert_rules(text)),
    PROJECTIONS,
  )


def read_chinese_clip(fields: Fields, entries: Entries) -> TwoTowerConfig:
  """Read the configuration of ChineseCLIPModel. The tensors are not needed: its text tower has no pooler."""
  image, text = read_clip_image(clip_part(fields, "vision_config")), read_bert(clip_part(fields, "text_config"), {})
  return paired(fields, image, text, fields.integer("projection_dim", 512))


def paired(fields: Fields, image: Any, text: Any, embed_dim: int) -> TwoTowerConfig:
  """A model with linear projections and CLIP's factor.

  Args:
    fields: config.json.
    image, text: the towers.
    embed_dim: dimension of the embeddings.
  """
  scale = math.exp(min(20.0, fields.number("logit_scale_init_value", 2.6592)))
  return TwoTowerConfig(image=image, text=text, embed_dim=embed_dim, init_logit_scale=scale, max_logit_scale=math.inf)


def write_chinese_clip(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a ViT beside a text transformer."""
  image, text = towers(config, "ChineseCLIPModel")
  vision = {"model_type": "chinese_clip_vision_model", "projection_dim": config.embed_dim} | write_vision(image)
  words = write_bert(text) | {"model_type": "chinese_clip_text_model", "architectures": None}
  return write_pair(config, "ChineseCLIPModel", "chinese_clip", vision, words)


# Files may leave out what is the default of AltCLIPTextConfig.
_ALT_TEXT: dict[str, Any] = dict(vocab_size=250_002, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24)
_ALT_TEXT |= dict(num_attention_heads=16, max_position_embeddings=514, layer_norm_eps=1e-5, type_vocab_size=1)


def alt_clip_rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of AltCLIPModel."""
  image, text = towers(config, "AltCLIPModel")
  return joined(
    under("image/", "vision_model.", clip_image(image)),
    under("text/", "text_model.roberta.", roberta_rules(text)),
    norm("^text/pooled_norm", "text_model.pre_LN"),
    linear("^text/pooled_projection", "text_model.transformation"),
    PROJECTIONS,
  )


def read_alt_clip(fields: Fields, entries: Entries) -> TwoTowerConfig:
  """Read the configuration of AltCLIPModel. The tensors are not needed: its text tower has no pooler."""
  image, part = read_clip_image(clip_part(fields, "vision_config")), clip_part(fields, "text_config")
  text = read_roberta(part.with_defaults(**_ALT_TEXT), {})
  text = dataclasses.replace(text, pooled_dim=part.integer("project_dim", 768))
  return paired(fields, image, text, fields.integer("projection_dim", 768))


def write_alt_clip(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a ViT beside a text transformer."""
  image, text = towers(config, "AltCLIPModel")
  vision = {"model_type": "altclip_vision_model", "projection_dim": config.embed_dim} | write_vision(image)
  words = write_roberta(text) | {"model_type": "altclip_text_model", "architectures": None}
  words |= {"project_dim": text.pooled_dim}
  return write_pair(config, "AltCLIPModel", "altclip", vision, words)


def write_pair(config: Any, name: str, kind: str, vision: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
  """Write config.json of a model with linear projections and CLIP's factor.

  Args:
    config: configuration of the model.
    name, kind: the class, and its model_type.
    vision, text: fields of the towers.
  """
  return {
    "architectures": [name],
    "model_type": kind,
    "projection_dim": config.embed_dim,
    "logit_scale_init_value": math.log(config.init_logit_scale),
    "vision_config": vision,
    "text_config": text,
  }


def towers(config: Any, name: str) -> tuple[ViTConfig, TextConfig]:
  """The towers of a model. Raises InteropError if they are not a ViT and a text transformer."""
  image, text = getattr(config, "image", None), getattr(config, "text", None)
  if isinstance(config, TwoTowerConfig) and isinstance(image, ViTConfig) and isinstance(text, TextConfig):
    return image, text
  raise wrong_kind(name, "a vision transformer beside a text transformer", config)


CHINESE_CLIP = Architecture(
  "ChineseCLIPModel", read_chinese_clip, write_chinese_clip, chinese_clip_rules, (*HEADS, r"^text_model\.pooler\.")
)
# transformers 5 calls the layers of the image tower so.
_LAYERS = ((r"^vision_model\.encoder\.layer\.", "vision_model.encoder.layers."),)
ALT_CLIP = Architecture("AltCLIPModel", read_alt_clip, write_alt_clip, alt_clip_rules, HEADS, _LAYERS)
