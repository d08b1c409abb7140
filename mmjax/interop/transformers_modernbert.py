"""Mapping of transformers' ModernBertModel (Warner et al. 2024)."""

from typing import Any

from mmjax.encoders import ModernTextConfig
from mmjax.interop.architecture import ACTIVATIONS, THEIR_ACTIVATIONS, Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm

_OURS, _THEIRS = r"transformer/block_(\d+)/", r"layers.\1."
_WORDS, _WINDOW = "full_attention", "sliding_attention"


def rules(config: ModernTextConfig) -> tuple[Rule, ...]:
  """Mapping rules. One tensor holds the queries, keys and values, and one the two first layers of the MLP."""
  del config
  parts = enumerate(("query", "key", "value"))
  return joined(
    *(linear(f"{_OURS}attention/{name}", f"{_THEIRS}attn.Wqkv", part) for part, name in parts),
    linear(f"{_OURS}attention/out", f"{_THEIRS}attn.Wo"),
    linear(f"{_OURS}mlp/gate", f"{_THEIRS}mlp.Wi", 0),
    linear(f"{_OURS}mlp/up", f"{_THEIRS}mlp.Wi", 1),
    linear(f"{_OURS}mlp/down", f"{_THEIRS}mlp.Wo"),
    norm(f"{_OURS}norm1", f"{_THEIRS}attn_norm"),
    norm(f"{_OURS}norm2", f"{_THEIRS}mlp_norm"),
    norm("^transformer/input_norm", "embeddings.norm"),
    norm("^transformer/norm", "final_norm"),
    (Rule("^token_embedding$", "embeddings.tok_embeddings.weight"),),
  )


def read(fields: Fields, entries: Entries) -> ModernTextConfig:
  """Read the configuration of ModernBertModel. The tensors are not needed. A text's vector is its first token."""
  del entries
  fields.only("is_causal", False, False)
  bias = fields.flag("attention_bias", False)
  fields.only("mlp_bias", bias, False)
  rotary, window = _temperatures(fields)
  depth = fields.integer("num_hidden_layers", 22)
  return ModernTextConfig(
    width=fields.integer("hidden_size", 768),
    mlp_dim=fields.integer("intermediate_size", 1152),
    depth=depth,
    num_heads=fields.integer("num_attention_heads", 12),
    activation=fields.choice("hidden_activation", ACTIVATIONS, "gelu"),
    linear_bias=bias,
    norm_bias=fields.flag("norm_bias", False),
    norm_epsilon=fields.number("norm_eps", 1e-5),
    vocab_size=fields.integer("vocab_size", 50_368),
    max_length=fields.integer("max_position_embeddings", 8192),
    pad_id=fields.integer("pad_token_id", 50_283, least=0),
    eos_id=fields.integer("eos_token_id", 50_282, least=0),
    window=fields.integer("local_attention", 128, least=2),
    global_every=_every(fields, depth),
    rotary_temperature=rotary,
    window_temperature=window,
  )


def _every(fields: Fields, depth: int) -> int:
  """Distance of the blocks that read all words: a number, or in transformers 5 the kind of each block."""
  kinds = fields.get("layer_types")
  if kinds is None:
    return fields.integer("global_attn_every_n_layers", 3)
  fields.get("global_attn_every_n_layers")  # layer_types decides
  if isinstance(kinds, list) and len(kinds) == depth:
    every = kinds.index(_WORDS, 1) if _WORDS in kinds[1:] else depth
    if kinds == [_WINDOW if layer % every else _WORDS for layer in range(depth)]:
      return every
  raise fields.wrong("layer_types", f"{_WORDS!r} in the first of every n of {depth} layers, and else {_WINDOW!r}")


def _temperatures(fields: Fields) -> tuple[float, float]:
  """Slowest rotations of both kinds of blocks, as transformers 5 writes them (rope_parameters) or as version 4 does."""
  found = []
  for kind, earlier, default in (
    (_WORDS, "global_rope_theta", 160_000.0),
    (_WINDOW, "local_rope_theta", 10_000.0),
  ):
    value = fields.number(earlier, default)
    part = fields.object("rope_parameters").object(kind)
    part.only("rope_type", "default", "default")
    found.append(part.number("rope_theta", value))
    part.finish({})
  if not min(found) > 0:
    raise fields.wrong("rope_parameters", "with rope_theta above 0")
  return found[0], found[1]


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single ModernBERT."""
  if not isinstance(config, ModernTextConfig):
    raise wrong_kind("ModernBertModel", "a ModernBERT alone", config)
  kinds = [_WINDOW if layer % config.global_every else _WORDS for layer in range(config.depth)]
  thetas = {_WORDS: config.rotary_temperature, _WINDOW: config.window_temperature}
  return {
    "architectures": ["ModernBertModel"],
    "model_type": "modernbert",
    "hidden_size": config.width,
    "intermediate_size": config.hidden,
    "num_hidden_layers": config.depth,
    "num_attention_heads": config.num_heads,
    "hidden_activation": THEIR_ACTIVATIONS[config.activation],
    "attention_bias": config.linear_bias,
    "mlp_bias": config.linear_bias,
    "norm_bias": config.norm_bias,
    "norm_eps": config.norm_epsilon,
    "vocab_size": config.vocab_size,
    "max_position_embeddings": config.max_length,
    **dict.fromkeys(("bos_token_id", "cls_token_id"), None),
    "pad_token_id": config.pad_id,
    "eos_token_id": config.eos_id,
    "sep_token_id": config.eos_id,
    "local_attention": config.window,
    "global_attn_every_n_layers": config.global_every,
    "global_rope_theta": config.rotary_temperature,
    "local_rope_theta": config.window_temperature,
    "layer_types": kinds,
    "rope_parameters": {kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()},
  }


_TRAINING, _HEAD = "used only in training", "used only by a head for one task"
_UNUSED = (
  dict.fromkeys(("embedding_dropout", "mlp_dropout", "initializer_cutoff_factor"), _TRAINING)
  | dict.fromkeys(("decoder_bias", "classifier_pooling", "classifier_bias", "classifier_activation"), _HEAD)
  | dict.fromkeys(("sparse_prediction", "sparse_pred_ignore_index", "repad_logits_with_grad"), _HEAD)
  | dict.fromkeys(("deterministic_flash_attn", "reference_compile"), "an implementation with the same results")
  | dict.fromkeys(("cls_token_id", "mask_token_id"), "the tokenizer's file has it too")
)
# ModernBERT is published with the head that guesses words. Of a model with a head, only the encoder is read.
_IGNORED = (r"^head\.", r"^decoder\.", r"^classifier\.")
MODERNBERT = Architecture("ModernBertModel", read, write, rules, _IGNORED, ((r"^model\.", ""),), without_effect=_UNUSED)
