"""Mapping of transformers' two-tower models: CLIPModel, SiglipModel, and Siglip2Model at a fixed resolution."""

import math
from typing import Any

from mmjax.encoders import TextConfig, ViTConfig
from mmjax.interop.architecture import (
  ACTIVATIONS,
  THEIR_ACTIVATIONS,
  Architecture,
  Entries,
  changed_towers,
  sides,
  wrong_kind,
)
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches, under
from mmjax.models import TwoTowerConfig
from mmjax.nn.transformer import TransformerConfig

_BLOCK = (r"transformer/block_(\d+)/", r"encoder.layers.\1.")
_BLOCKS = joined(
  *(
    linear(f"{_BLOCK[0]}attention/{ours}", f"{_BLOCK[1]}self_attn.{theirs}")
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj"))
  ),
  norm(f"{_BLOCK[0]}norm1", f"{_BLOCK[1]}layer_norm1"),
  norm(f"{_BLOCK[0]}norm2", f"{_BLOCK[1]}layer_norm2"),
  linear(f"{_BLOCK[0]}mlp/up", f"{_BLOCK[1]}mlp.fc1"),
  linear(f"{_BLOCK[0]}mlp/down", f"{_BLOCK[1]}mlp.fc2"),
)
_TEXT = joined(
  _BLOCKS,
  norm("transformer/norm", "final_layer_norm"),
  (
    Rule("token_embedding$", "embeddings.token_embedding.weight"),
    Rule("position_embedding$", "embeddings.position_embedding.weight"),
  ),
)
_POSITIONS = "embeddings.position_embedding.weight"
_IN_PROJ = "head.attention.in_proj"
_MAP_HEAD = joined(
  (Rule("pool/probe$", "head.probe", "1 1 d -> 1 d"),),
  *(
    (
      Rule(f"pool/attention/{name}/kernel$", f"{_IN_PROJ}_weight", "o i -> i o", part=part),
      Rule(f"pool/attention/{name}/bias$", f"{_IN_PROJ}_bias", part=part),
    )
    for part, name in enumerate(("query", "key", "value"))
  ),
  linear("pool/attention/out", "head.attention.out_proj"),
  norm("pool/norm", "head.layernorm"),
  linear("pool/mlp/up", "head.mlp.fc1"),
  linear("pool/mlp/down", "head.mlp.fc2"),
)
# Buffers that older versions also wrote.
_IGNORED = (r"embeddings\.position_ids$",)


def clip_rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of CLIPModel."""
  image = joined(
    _BLOCKS,
    patches("stem/projection", "embeddings.patch_embedding", _vit(config).patch_size),
    norm("transformer/input_norm", "pre_layrnorm"),
    norm("transformer/norm", "post_layernorm"),
    (
      Rule("class_token$", "embeddings.class_embedding", "d -> 1 d"),
      Rule("class_position$", _POSITIONS, part=0),
      Rule("position_embedding$", _POSITIONS, part=1),
    ),
  )
  return joined(
    under("image/", "vision_model.", image),
    under("text/", "text_model.", _TEXT),
    linear("^image_projection", "visual_projection"),
    linear("^text_projection", "text_projection"),
    (Rule("^logit_scale$", "logit_scale"),),
  )


def siglip_rules(config: TwoTowerConfig, patch_layout: str = "o c p q -> (p q c) o") -> tuple[Rule, ...]:
  """Mapping rules of SiglipModel. `patch_layout` is the layout of the patch embedding's kernel."""
  image = joined(
    _BLOCKS,
    patches("stem/projection", "embeddings.patch_embedding", _vit(config).patch_size, patch_layout),
    norm("transformer/norm", "post_layernorm"),
    (Rule("position_embedding$", _POSITIONS),),
    _MAP_HEAD,
  )
  return joined(
    under("image/", "vision_model.", image),
    under("text/", "text_model.", _TEXT),
    linear("^text_projection", "text_model.head"),
    (Rule("^logit_scale$", "logit_scale", "1 ->"), Rule("^logit_bias$", "logit_bias", "1 ->")),
  )


def siglip2_rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  """Mapping rules of Siglip2Model."""
  # It takes patches instead of images, so its patch embedding is a linear layer. Pixels in a patch are ordered as here.
  return siglip_rules(config, "o i -> i o")


def _vit(config: TwoTowerConfig) -> ViTConfig:
  assert isinstance(config.image, ViTConfig)
  return config.image


def read_clip(fields: Fields, entries: Entries) -> TwoTowerConfig:
  """Read the configuration of CLIPModel. The tensors are not needed."""
  del entries
  text, vision = (_clip_part(fields, name) for name in ("text_config", "vision_config"))
  vision.only("num_channels", 3, 3)
  eos_id = text.integer("eos_token_id", 49407, least=0)
  return TwoTowerConfig(
    image=ViTConfig(
      **_size(vision, 768, 3072, 12),
      activation=vision.choice("hidden_act", ACTIVATIONS, "quick_gelu"),
      norm_epsilon=vision.number("layer_norm_eps", 1e-5),
      **sides(vision.square("image_size", 224), vision.square("patch_size", 32)),
      pool="cls",
      input_norm=True,
      class_position=True,
      stem_bias=False,
    ),
    text=TextConfig(
      **_size(text, 512, 2048, 8),
      activation=text.choice("hidden_act", ACTIVATIONS, "quick_gelu"),
      norm_epsilon=text.number("layer_norm_eps", 1e-5),
      vocab_size=text.integer("vocab_size", 49408),
      max_length=text.integer("max_position_embeddings", 77),
      # Older configurations all have eos_token_id 2. It stands for the rule of that time: pool at the largest id.
      pool="argmax" if eos_id == 2 else "eos_or_first",
      eos_id=eos_id,
      pad_id=text.integer("pad_token_id", 1, least=0),
      mask_padding=False,
    ),
    embed_dim=fields.integer("projection_dim", 512),
    init_logit_scale=math.exp(min(20.0, fields.number("logit_scale_init_value", 2.6592))),
    max_logit_scale=math.inf,
  )


def write_clip(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a two-tower model with a ViT."""
  image, text = _towers(config, "CLIPModel")
  eos = 2 if text.pool == "argmax" else text.eos_id
  if text.pool != "argmax" and eos == 2:
    raise InteropError("CLIPModel pools at the largest id if eos_token_id is 2; give the end token another id")
  return {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": config.embed_dim,
    "logit_scale_init_value": math.log(config.init_logit_scale),
    "vision_config": {"model_type": "clip_vision_model", "projection_dim": config.embed_dim} | _write_vision(image),
    "text_config": {"model_type": "clip_text_model", "projection_dim": config.embed_dim, "eos_token_id": eos}
    | _write_text(text),
  }


def read_siglip(fields: Fields, entries: Entries) -> TwoTowerConfig:
  """Read the configuration of SiglipModel. The tensors are not needed."""
  vision = fields.object("vision_config")
  return _read_siglip(fields, vision, vision.square("image_size", 224))


def read_siglip2(fields: Fields, entries: Entries) -> TwoTowerConfig:
  """Read the configuration of Siglip2Model, at its fixed number of patches. The tensors are not needed."""
  vision = fields.object("vision_config")
  number, side = vision.integer("num_patches", 256), vision.square("patch_size", 16)
  if math.isqrt(number) ** 2 != number:
    raise vision.wrong("num_patches", "a square number: mmjax reads Siglip2Model at one fixed, square resolution")
  return _read_siglip(fields, vision, math.isqrt(number) * side)


def _read_siglip(fields: Fields, vision: Fields, image_size: int) -> TwoTowerConfig:
  text = fields.object("text_config")
  vision.only("num_channels", 3, 3)
  vision.only("vision_use_head", True, True)
  size = _size(vision, 768, 3072, 12)
  if text.integer("projection_size", text.integer("hidden_size", 768)) != size["width"]:
    raise text.wrong("projection_size", f"the vision tower's hidden_size, {size['width']}")
  return TwoTowerConfig(
    image=ViTConfig(
      **size,
      activation=vision.choice("hidden_act", ACTIVATIONS, "gelu_pytorch_tanh"),
      norm_epsilon=vision.number("layer_norm_eps", 1e-6),
      **sides(image_size, vision.square("patch_size", 16)),
      pool="map",
    ),
    text=TextConfig(
      **_size(text, 768, 3072, 12),
      activation=text.choice("hidden_act", ACTIVATIONS, "gelu_pytorch_tanh"),
      norm_epsilon=text.number("layer_norm_eps", 1e-6),
      vocab_size=text.integer("vocab_size", 32000),
      max_length=text.integer("max_position_embeddings", 64),
      causal=False,
      pool="last",
      pad_id=text.integer("pad_token_id", 1, least=0),
      eos_id=text.integer("eos_token_id", 49407, least=0),
      mask_padding=False,
    ),
    embed_dim=size["width"],
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
    "vision_config": {"model_type": "siglip_vision_model"} | _write_vision(image),
    "text_config": {"model_type": "siglip_text_model", "projection_size": config.embed_dim, "eos_token_id": text.eos_id}
    | _write_text(text),
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


def _clip_part(fields: Fields, name: str) -> Fields:
  """Configuration of one tower. Early CLIP files also have text_config_dict, which then replaces text_config."""
  older = f"{name}_dict"
  fields.get(name)
  return fields.object(older if older in fields else name)


def _size(fields: Fields, width: int, hidden: int, heads: int) -> dict[str, Any]:
  return {
    "width": fields.integer("hidden_size", width),
    "mlp_dim": fields.integer("intermediate_size", hidden),
    "depth": fields.integer("num_hidden_layers", 12),
    "num_heads": fields.integer("num_attention_heads", heads),
  }


def _towers(config: Any, name: str) -> tuple[ViTConfig, TextConfig]:
  if not isinstance(config, TwoTowerConfig):
    raise wrong_kind(name, "a vision transformer beside a text transformer", config)
  for tower, kind in ((config.image, ViTConfig), (config.text, TextConfig)):
    if not isinstance(tower, kind):
      raise wrong_kind(name, "a vision transformer beside a text transformer", tower)
  image, text = config.image, config.text
  assert isinstance(image, ViTConfig) and isinstance(text, TextConfig)
  return image, text


def write_size(c: TransformerConfig) -> dict[str, Any]:
  """Write the fields that every tower in transformers has."""
  return {
    "hidden_size": c.width,
    "intermediate_size": c.hidden,
    "num_hidden_layers": c.depth,
    "num_attention_heads": c.num_heads,
    "hidden_act": THEIR_ACTIVATIONS[c.activation],
    "layer_norm_eps": c.norm_epsilon,
  }


def _write_vision(c: ViTConfig) -> dict[str, Any]:
  return write_size(c) | {"image_size": c.image_size, "patch_size": c.patch_size, "num_channels": 3}


def _write_text(c: TextConfig) -> dict[str, Any]:
  ids = {"pad_token_id": c.pad_id, "bos_token_id": None}
  return write_size(c) | {"vocab_size": c.vocab_size, "max_position_embeddings": c.max_length} | ids


CLIP = Architecture("CLIPModel", read_clip, write_clip, clip_rules, _IGNORED)
SIGLIP = Architecture("SiglipModel", read_siglip, write_siglip, siglip_rules, _IGNORED, nearest=nearest_siglip)
SIGLIP2 = Architecture("Siglip2Model", read_siglip2, write_siglip2, siglip2_rules, _IGNORED, nearest=nearest_siglip)
