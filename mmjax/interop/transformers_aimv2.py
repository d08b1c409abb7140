"""Mapping of transformers' AIMv2 (Fini et al. 2025): Aimv2Model, Aimv2VisionModel and Aimv2TextModel."""

import math
from typing import Any

from mmjax.encoders import TextConfig, ViTConfig
from mmjax.interop.architecture import ACTIVATIONS, THEIR_ACTIVATIONS, Architecture, Entries, sides, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, patches, under
from mmjax.interop.transformers_pairs import PROJECTIONS, towers, write_pair
from mmjax.models import TwoTowerConfig
from mmjax.nn.transformer import TransformerConfig

_OURS, _THEIRS = r"transformer/block_(\d+)/", r"encoder.layers.\1."


def _blocks() -> tuple[Rule, ...]:
  names = {name: f"attention.{name[0]}_proj" for name in ("query", "key", "value")} | {"out": "attention.out_proj"}
  return joined(
    *(linear(f"{_OURS}attention/{ours}", f"{_THEIRS}{theirs}") for ours, theirs in names.items()),
    *(linear(f"{_OURS}mlp/{name}", f"{_THEIRS}ffn.{name}_proj") for name in ("gate", "up", "down")),
    *((Rule(f"{_OURS}norm{n}/scale$", f"{_THEIRS}rms_norm{n}.weight"),) for n in (1, 2)),
    (Rule("^transformer/norm/scale$", "rms_norm.weight"),),
  )


def image_rules(config: ViTConfig) -> tuple[Rule, ...]:
  """Mapping rules of Aimv2VisionModel."""
  return joined(
    _blocks(),
    patches("^stem/projection", "embeddings.patch_embed", config.patch_size),
    (
      Rule("^patch_norm/scale$", "embeddings.rms_norm.weight"),
      Rule("^position_embedding$", "embeddings.position_embedding.weight"),
      Rule("^pool/probe$", "head.cls_token", "1 1 d -> 1 d"),
    ),
    linear("^pool/key", "head.k_proj"),
    linear("^pool/value", "head.v_proj"),
    linear("^pool/out", "head.output_proj"),
  )


def text_rules(config: TextConfig) -> tuple[Rule, ...]:
  """Mapping rules of Aimv2TextModel."""
  del config
  return joined(
    _blocks(),
    (
      Rule("^token_embedding$", "embeddings.token_embedding.weight"),
      Rule("^position_embedding$", "embeddings.position_embedding.weight"),
    ),
  )


def _rules(config: TwoTowerConfig) -> tuple[Rule, ...]:
  image, text = towers(config, "Aimv2Model")
  return joined(
    under("image/", "vision_model.", image_rules(image)), under("text/", "text_model.", text_rules(text)), PROJECTIONS
  )


def _size(fields: Fields, width: int, hidden: int, depth: int, heads: int) -> dict[str, Any]:
  biases = {name: fields.flag(name, False) for name in ("qkv_bias", "mlp_bias")}
  if biases["qkv_bias"] != biases["mlp_bias"]:
    raise fields.wrong("mlp_bias", "equal to qkv_bias")
  return {
    "width": fields.integer("hidden_size", width),
    "mlp_dim": fields.integer("intermediate_size", hidden),
    "depth": fields.integer("num_hidden_layers", depth),
    "num_heads": fields.integer("num_attention_heads", heads),
    "activation": fields.choice("hidden_act", ACTIVATIONS, "silu"),
    "norm_epsilon": fields.number("rms_norm_eps", 1e-5),
    "linear_bias": biases["qkv_bias"],
    "mlp_gated": True,
    "rms_norm": True,
  }


def read_image(fields: Fields, entries: Entries) -> ViTConfig:
  """Read the configuration of Aimv2VisionModel. The tensors tell nothing more: use_head does."""
  del entries
  fields.only("num_channels", 3, 3)
  fields.only("use_head", True, True)  # without it, there is no vector of an image
  if fields.flag("is_native", False):
    raise InteropError(
      f"{fields.where}: is_native is true: this AIMv2 takes images of any shape, and mmjax reads those of one "
      "square size"
    )
  return ViTConfig(
    **_size(fields, 1024, 2816, 24, 8),
    **sides(fields.square("image_size", 224), fields.square("patch_size", 14)),
    patch_norm=True,
    pool="probe",
  )


def read_text(fields: Fields, entries: Entries) -> TextConfig:
  """Read the configuration of Aimv2TextModel. The tensors are not needed."""
  del entries
  return TextConfig(
    **_size(fields, 768, 2048, 12, 6),
    vocab_size=fields.integer("vocab_size", 49408),
    max_length=fields.integer("max_position_embeddings", 77),
    causal=True,
    pool="eos_or_first",
    eos_id=fields.integer("eos_token_id", 49407, least=0),
    pad_id=0,
    mask_padding=False,
  )


def _read(fields: Fields, entries: Entries) -> TwoTowerConfig:
  """Read the configuration of Aimv2Model. The tensors are not needed."""
  return TwoTowerConfig(
    image=read_image(fields.object("vision_config"), entries),
    text=read_text(fields.object("text_config"), entries),
    embed_dim=fields.integer("projection_dim", 512),
    init_logit_scale=math.exp(min(4.0, fields.number("logit_scale_init_value", 2.6592))),
    max_logit_scale=fields.number("max_logit_scale", 100.0),
  )


def _write_size(c: TransformerConfig) -> dict[str, Any]:
  return {
    "hidden_size": c.width,
    "intermediate_size": c.hidden,
    "num_hidden_layers": c.depth,
    "num_attention_heads": c.num_heads,
    "hidden_act": THEIR_ACTIVATIONS[c.activation],
    "rms_norm_eps": c.norm_epsilon,
    "qkv_bias": c.linear_bias,
    "mlp_bias": c.linear_bias,
  }


def write_image(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single ViT."""
  if not isinstance(config, ViTConfig):
    raise wrong_kind("Aimv2VisionModel", "a vision transformer alone", config)
  size = {"image_size": config.image_size, "patch_size": config.patch_size, "num_channels": 3}
  named = {"architectures": ["Aimv2VisionModel"], "model_type": "aimv2_vision_model"}
  return named | _write_size(config) | size | {"use_head": True, "is_native": False}


def write_text(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single text transformer."""
  if not isinstance(config, TextConfig):
    raise wrong_kind("Aimv2TextModel", "a text transformer alone", config)
  ids = {"vocab_size": config.vocab_size, "max_position_embeddings": config.max_length, "eos_token_id": config.eos_id}
  return {"architectures": ["Aimv2TextModel"], "model_type": "aimv2_text_model"} | _write_size(config) | ids


def _write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a ViT beside a text transformer."""
  image, text = towers(config, "Aimv2Model")
  parts = write_image(image) | {"architectures": None}, write_text(text) | {"architectures": None}
  return write_pair(config, "Aimv2Model", "aimv2", *parts) | {"max_logit_scale": config.max_logit_scale}


_IGNORED = (r"embeddings\.position_ids$",)
AIMV2 = Architecture("Aimv2Model", _read, _write, _rules, _IGNORED)
AIMV2_IMAGE = Architecture(
  "Aimv2VisionModel", read_image, write_image, image_rules, _IGNORED, ((r"^vision_model\.", ""),)
)
AIMV2_TEXT = Architecture("Aimv2TextModel", read_text, write_text, text_rules, _IGNORED, ((r"^text_model\.", ""),))
