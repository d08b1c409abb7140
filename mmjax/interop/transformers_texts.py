"""Mapping of transformers' text encoders: RobertaModel (XLM-RoBERTa too), MPNetModel and DistilBertModel."""

import dataclasses
from typing import Any

from mmjax.encoders import TextConfig
from mmjax.encoders.bert import bert_config
from mmjax.interop.architecture import ACTIVATIONS, THEIR_ACTIVATIONS, Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm
from mmjax.interop.transformers_parts import write_size
from mmjax.interop.transformers_single import HEADS, bert_rules, encoder_layers, read_size

_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_POSITIONS = "embeddings.position_embeddings.weight"
# Positions begin after the row of padding.
COUNTED = (Rule("^padding_position$", _POSITIONS, part=0), Rule("^position_embedding$", _POSITIONS, part=1))


def roberta_rules(config: TextConfig) -> tuple[Rule, ...]:
  """Mapping rules of RobertaModel."""
  return joined(COUNTED, bert_rules(config))


def read_roberta(fields: Fields, entries: Entries) -> TextConfig:
  """Read the configuration of RobertaModel or XLMRobertaModel. The tensors tell if it has a pooler."""
  for name, supported in (
    ("position_embedding_type", "absolute"),
    ("is_decoder", False),
    ("add_cross_attention", False),
  ):
    fields.only(name, supported, supported)
  return _counted(fields, entries, token_types=fields.integer("type_vocab_size", 2))


def _counted(fields: Fields, entries: Entries, **more: Any) -> TextConfig:
  pad_id = fields.integer("pad_token_id", 1, least=0)
  length = fields.integer("max_position_embeddings", 512, least=pad_id + 2)
  return bert_config(
    **read_size(fields),
    activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
    norm_epsilon=fields.number("layer_norm_eps", 1e-12),
    vocab_size=fields.integer("vocab_size"),
    max_length=length - pad_id - 1,
    count_positions=True,
    pad_id=pad_id,
    tanh_pool="pooler.dense.weight" in entries,
    **more,
  )


def write_roberta(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single text transformer."""
  return _write(config, "Roberta", "roberta") | {"type_vocab_size": config.token_types}


def _write(config: Any, name: str, kind: str) -> dict[str, Any]:
  if not isinstance(config, TextConfig):
    raise wrong_kind(f"{name}Model", "a text transformer alone", config)
  return {
    "architectures": [f"{name}Model"],
    "model_type": kind,
    **write_size(config),
    "vocab_size": config.vocab_size,
    "max_position_embeddings": config.max_length + config.pad_id + 1,
    "pad_token_id": config.pad_id,
    **_DROPOUT,
  }


def mpnet_rules(config: TextConfig) -> tuple[Rule, ...]:
  """Mapping rules of MPNetModel."""
  del config
  names = {name: f"attention.attn.{name[0]}" for name in ("query", "key", "value", "out")}
  return joined(
    COUNTED,
    encoder_layers(names, "attention.LayerNorm", "output.LayerNorm"),
    norm("^transformer/input_norm", "embeddings.LayerNorm"),
    (
      Rule("^token_embedding$", "embeddings.word_embeddings.weight"),
      Rule("^transformer/relative_bias/table$", "encoder.relative_attention_bias.weight"),
    ),
  )


def read_mpnet(fields: Fields, entries: Entries) -> TextConfig:
  """Read the configuration of MPNetModel. The tensors tell if it has a pooler."""
  fields.only("pad_token_id", 1, 1)  # transformers counts positions from 1, whatever the padding is
  fields.only("relative_attention_num_buckets", 32, 32)  # its buckets are those of 32, whatever the size of its table
  return _counted(fields, entries, token_types=0, relative_buckets=32)


def write_mpnet(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single text transformer."""
  return _write(config, "MPNet", "mpnet") | {"relative_attention_num_buckets": config.relative_buckets}


_LAYER = (r"transformer/block_(\d+)/", r"transformer.layer.\1.")


def distilbert_rules(config: TextConfig) -> tuple[Rule, ...]:
  """Mapping rules of DistilBertModel."""
  del config
  names = {"query": "q_lin", "key": "k_lin", "value": "v_lin", "out": "out_lin"}
  layers = joined(
    *(linear(f"attention/{ours}", f"attention.{theirs}") for ours, theirs in names.items()),
    linear("mlp/up", "ffn.lin1"),
    linear("mlp/down", "ffn.lin2"),
    norm("norm1", "sa_layer_norm"),
    norm("norm2", "output_layer_norm"),
  )
  return joined(
    (dataclasses.replace(rule, ours=_LAYER[0] + rule.ours, theirs=_LAYER[1] + rule.theirs) for rule in layers),
    norm("^transformer/input_norm", "embeddings.LayerNorm"),
    (
      Rule("^token_embedding$", "embeddings.word_embeddings.weight"),
      Rule("^position_embedding$", _POSITIONS),  # of sinusoidal ones too
    ),
  )


def read_distilbert(fields: Fields, entries: Entries) -> TextConfig:
  """Read the configuration of DistilBertModel. The tensors are not needed."""
  del entries
  return bert_config(
    width=fields.integer("dim", 768),
    mlp_dim=fields.integer("hidden_dim", 3072),
    depth=fields.integer("n_layers", 6),
    num_heads=fields.integer("n_heads", 12),
    activation=fields.choice("activation", ACTIVATIONS, "gelu"),
    vocab_size=fields.integer("vocab_size", 30522),
    max_length=fields.integer("max_position_embeddings", 512),
    pad_id=fields.integer("pad_token_id", 0, least=0),
    token_types=0,
    tanh_pool=False,
  )


def write_distilbert(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single text transformer."""
  if not isinstance(config, TextConfig):
    raise wrong_kind("DistilBertModel", "a text transformer alone", config)
  return {
    "architectures": ["DistilBertModel"],
    "model_type": "distilbert",
    "dim": config.width,
    "hidden_dim": config.hidden,
    "n_layers": config.depth,
    "n_heads": config.num_heads,
    "activation": THEIR_ACTIVATIONS[config.activation],
    "vocab_size": config.vocab_size,
    "max_position_embeddings": config.max_length,
    "pad_token_id": config.pad_id,
    "dropout": 0.0,
    "attention_dropout": 0.0,
  }


# Of a model with a head for one task, only the encoder is read. Sentence encoders do not use the pooler.
_IGNORED = (*HEADS, r"^pooler\.", r"^lm_head\.", r"^pre_classifier\.", r"^vocab_")
ROBERTA = Architecture("RobertaModel", read_roberta, write_roberta, roberta_rules, _IGNORED, ((r"^roberta\.", ""),))
MPNET = Architecture("MPNetModel", read_mpnet, write_mpnet, mpnet_rules, _IGNORED, ((r"^mpnet\.", ""),))
DISTILBERT = Architecture(
  "DistilBertModel", read_distilbert, write_distilbert, distilbert_rules, _IGNORED, ((r"^distilbert\.", ""),)
)
