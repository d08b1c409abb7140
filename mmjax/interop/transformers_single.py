"""Mapping of transformers' single towers: ViTModel and its kin, BertModel and sentence encoders based on it."""

from collections.abc import Mapping
from typing import Any

from mmjax.encoders import TextConfig, ViTConfig, bert_config
from mmjax.interop.architecture import ACTIVATIONS, THEIR_ACTIVATIONS, Architecture, Entries, sides, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches
from mmjax.interop.transformers_parts import write_size

_OURS, _THEIRS = r"transformer/block_(\d+)/", r"encoder.layer.\1."


def encoder_layers(attention: Mapping[str, str], after_attention: str, after_mlp: str) -> tuple[Rule, ...]:
  """Mapping rules of the blocks, and of the pooler.

  Args:
    attention: their name of each projection of attention.
    after_attention, after_mlp: their names of the first and the second norm of a block.
  """
  return joined(
    *(linear(f"{_OURS}attention/{ours}", f"{_THEIRS}{theirs}") for ours, theirs in attention.items()),
    linear(f"{_OURS}mlp/up", f"{_THEIRS}intermediate.dense"),
    linear(f"{_OURS}mlp/down", f"{_THEIRS}output.dense"),
    norm(f"{_OURS}norm1", f"{_THEIRS}{after_attention}"),
    norm(f"{_OURS}norm2", f"{_THEIRS}{after_mlp}"),
    linear("^tanh_pool/dense", "pooler.dense"),
  )


def _attention(name: str) -> dict[str, str]:
  projections = {part: f"attention.{name}.{part}" for part in ("query", "key", "value")}
  return projections | {"out": "attention.output.dense"}


def pre_norm_layers() -> tuple[Rule, ...]:
  """Mapping rules of the blocks of ViTModel, and of its pooler."""
  return encoder_layers(_attention("attention"), "layernorm_before", "layernorm_after")


def vit_rules(config: ViTConfig) -> tuple[Rule, ...]:
  """Mapping rules of ViTModel."""
  positions = "embeddings.position_embeddings"
  return joined(
    pre_norm_layers(),
    patches("^stem/projection", "embeddings.patch_embeddings.projection", config.patch_size),
    norm("^transformer/norm", "layernorm"),
    (
      Rule("^class_token$", "embeddings.cls_token", "1 1 d -> 1 d"),
      Rule("^class_position$", positions, "1 n d -> n d", part=0, axis=1),
      Rule("^position_embedding$", positions, "1 n d -> n d", part=1, axis=1),
    ),
  )


def bert_rules(config: TextConfig) -> tuple[Rule, ...]:
  """Mapping rules of BertModel."""
  del config
  return joined(
    encoder_layers(_attention("self"), "attention.output.LayerNorm", "output.LayerNorm"),
    norm("^transformer/input_norm", "embeddings.LayerNorm"),
    (
      Rule("^token_embedding$", "embeddings.word_embeddings.weight"),
      Rule("^position_embedding$", "embeddings.position_embeddings.weight"),
      Rule("^token_type_embedding$", "embeddings.token_type_embeddings.weight"),
    ),
  )


def read_msn(fields: Fields, entries: Entries) -> ViTConfig:
  """Read the configuration of ViTMSNModel, a ViTModel with another default."""
  return read_vit(fields, entries, epsilon=1e-6)


def read_vit(fields: Fields, entries: Entries, *, epsilon: float = 1e-12) -> ViTConfig:
  """Read the configuration of ViTModel. The tensors tell if it has a pooler. `epsilon` is the default of the norms."""
  fields.only("num_channels", 3, 3)
  fields.only("qkv_bias", True, True)
  pooled = "pooler.dense.weight" in entries
  if pooled:
    fields.only("pooler_act", "tanh", "tanh")
    fields.only("pooler_output_size", fields.integer("hidden_size", 768), fields.integer("hidden_size", 768))
  return ViTConfig(
    **read_size(fields),
    activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
    norm_epsilon=fields.number("layer_norm_eps", epsilon),
    **sides(fields.square("image_size", 224), fields.square("patch_size", 16)),
    pool="cls",
    class_position=True,
    tanh_pool=pooled,
  )


def write_vit(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single ViT."""
  if not isinstance(config, ViTConfig):
    raise wrong_kind("ViTModel", "a vision transformer alone", config)
  return {
    "architectures": ["ViTModel"],
    "model_type": "vit",
    **write_size(config),
    "image_size": config.image_size,
    "patch_size": config.patch_size,
    "num_channels": 3,
    "qkv_bias": True,
    "pooler_act": "tanh",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
  }


def read_bert(fields: Fields, entries: Entries) -> TextConfig:
  """Read the configuration of BertModel. The tensors tell if it has a pooler."""
  for name, supported in (
    ("position_embedding_type", "absolute"),
    ("is_decoder", False),
    ("add_cross_attention", False),
  ):
    fields.only(name, supported, supported)
  pooled = "pooler.dense.weight" in entries
  return bert_config(
    **read_size(fields),
    activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
    norm_epsilon=fields.number("layer_norm_eps", 1e-12),
    vocab_size=fields.integer("vocab_size", 30522),
    max_length=fields.integer("max_position_embeddings", 512),
    token_types=fields.integer("type_vocab_size", 2),
    pad_id=fields.integer("pad_token_id", 0, least=0),
    tanh_pool=pooled,
  )


def write_bert(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single text transformer."""
  if not isinstance(config, TextConfig):
    raise wrong_kind("BertModel", "a text transformer alone", config)
  return {
    "architectures": ["BertModel"],
    "model_type": "bert",
    **write_size(config),
    "hidden_act": THEIR_ACTIVATIONS[config.activation],
    "vocab_size": config.vocab_size,
    "max_position_embeddings": config.max_length,
    "type_vocab_size": config.token_types,
    "pad_token_id": config.pad_id,
    "position_embedding_type": "absolute",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
  }


def read_size(fields: Fields) -> dict[str, Any]:
  """Read the size of an encoder with the defaults of the base size."""
  return {
    "width": fields.integer("hidden_size", 768),
    "mlp_dim": fields.integer("intermediate_size", 3072),
    "depth": fields.integer("num_hidden_layers", 12),
    "num_heads": fields.integer("num_attention_heads", 12),
  }


# Of a model with a head for one task, only the encoder is read.
HEADS = (r"embeddings\.position_ids$", r"^classifier\.", r"^cls\.", r"^qa_outputs\.", r"embeddings\.mask_token$")
_VIT = ((r"^vit\.", ""),)
_RECONSTRUCTION = dict.fromkeys(
  (
    "mask_ratio",
    "norm_pix_loss",
    "decoder_hidden_size",
    "decoder_intermediate_size",
    "decoder_num_attention_heads",
    "decoder_num_hidden_layers",
  ),
  "used only to hide patches and to reconstruct them; mmjax encodes all patches",
)
VIT = Architecture("ViTModel", read_vit, write_vit, vit_rules, HEADS, _VIT)
VIT_MSN = Architecture("ViTMSNModel", read_msn, write_vit, vit_rules, HEADS, _VIT)
VIT_MAE = Architecture(
  "ViTMAEModel", read_vit, write_vit, vit_rules, (*HEADS, r"^decoder\."), _VIT, without_effect=_RECONSTRUCTION
)
BERT = Architecture(
  "BertModel",
  read_bert,
  write_bert,
  bert_rules,
  (*HEADS, r"^pooler\."),  # sentence encoders do not use the pooler
  ((r"^bert\.", ""), (r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")),
)
