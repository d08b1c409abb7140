"""Mapping of the encoder of T5 and mT5: T5EncoderModel of transformers."""

from typing import Any, Literal

from mmjax.encoders import TextConfig
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, under

_LAYER = (r"transformer/block_(\d+)/", r"block.\1.")
_ATTENTION = (f"{_LAYER[0]}attention/", f"{_LAYER[1]}layer.0.SelfAttention.")
_MLP = (f"{_LAYER[0]}mlp/", f"{_LAYER[1]}layer.1.DenseReluDense.")


def stack_rules(config: TextConfig) -> tuple[Rule, ...]:
  """Mapping rules of the encoder, without its token embeddings."""
  first = ("up", "wi_1") if config.mlp_gated else ("up", "wi")
  return joined(
    *(linear(_ATTENTION[0] + name, _ATTENTION[1] + name[0]) for name in ("query", "key", "value", "out")),
    *(linear(_MLP[0] + ours, _MLP[1] + theirs) for ours, theirs in (first, ("gate", "wi_0"), ("down", "wo"))),
    norm(f"{_LAYER[0]}norm1", f"{_LAYER[1]}layer.0.layer_norm"),
    norm(f"{_LAYER[0]}norm2", f"{_LAYER[1]}layer.1.layer_norm"),
    norm("transformer/norm", "final_layer_norm"),
    (Rule("transformer/relative_bias/table$", "block.0.layer.0.SelfAttention.relative_attention_bias.weight"),),
  )


def rules(config: TextConfig) -> tuple[Rule, ...]:
  """Mapping rules of T5EncoderModel."""
  return joined(under("", "encoder.", stack_rules(config)), (Rule("^token_embedding$", "shared.weight"),))


# Activation, and whether a gate has it. "gated-gelu" is GELU's tanh approximation, as transformers has it.
_FEED_FORWARD: dict[str, tuple[Literal["relu", "gelu", "gelu_tanh", "silu"], bool]] = {
  "relu": ("relu", False),
  "gelu": ("gelu", False),
  "gelu_new": ("gelu_tanh", False),
  "gated-relu": ("relu", True),
  "gated-gelu": ("gelu_tanh", True),
  "gated-silu": ("silu", True),
}


def t5_config(**fields: Any) -> TextConfig:
  """Configuration of T5's encoder. It has no pooler, so it pools by the mean over the tokens.

  Args:
    **fields: the size, the activation and other fields of TextConfig.
  """
  defaults: dict[str, Any] = dict(
    causal=False,
    pool="mean",
    positions="none",
    rms_norm=True,
    linear_bias=False,
    scaled_attention=False,
    relative_buckets=32,
    norm_epsilon=1e-6,
    max_length=512,
  )
  return TextConfig(**(defaults | fields))


def read(fields: Fields, entries: Entries) -> TextConfig:
  """Read the configuration of T5 or mT5. The tensors are not needed."""
  del entries
  fields.only("is_decoder", False, False)
  gated = fields.get("model_type") == "mt5"
  activation, gate = fields.choice("feed_forward_proj", _FEED_FORWARD, "gated-gelu" if gated else "relu")
  for name, value in (("is_gated_act", gate), ("dense_act_fn", _dense(activation))):  # derived from feed_forward_proj
    fields.only(name, value, value)
  return t5_config(
    width=fields.integer("d_model", 512),
    mlp_dim=fields.integer("d_ff", 2048),
    depth=fields.integer("num_layers", 6),
    num_heads=fields.integer("num_heads", 8),
    head_dim=fields.integer("d_kv", 64),
    relative_buckets=fields.integer("relative_attention_num_buckets", 32, least=4),
    relative_distance=fields.integer("relative_attention_max_distance", 128),
    norm_epsilon=fields.number("layer_norm_epsilon", 1e-6),
    vocab_size=fields.integer("vocab_size"),
    max_length=fields.integer("n_positions", 512),  # transformers has no limit
    pad_id=fields.integer("pad_token_id", 0, least=0),
    activation=activation,
    mlp_gated=gate,
  )


def _dense(activation: str) -> str:
  return "gelu_new" if activation == "gelu_tanh" else activation


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not T5's encoder."""
  if not isinstance(config, TextConfig):
    raise wrong_kind("T5EncoderModel", "a text transformer alone", config)
  kinds = [name for name, kind in _FEED_FORWARD.items() if kind == (config.activation, config.mlp_gated)]
  if not kinds:
    gate = " with a gate" if config.mlp_gated else ""
    raise InteropError(f"T5EncoderModel has no MLP with activation={config.activation!r}{gate}")
  return {
    "architectures": ["T5EncoderModel"],
    "model_type": "t5",
    "d_model": config.width,
    "d_ff": config.hidden,
    "num_layers": config.depth,
    "num_heads": config.num_heads,
    "d_kv": config.attention_width // config.num_heads,
    "relative_attention_num_buckets": config.relative_buckets,
    "relative_attention_max_distance": config.relative_distance,
    "layer_norm_epsilon": config.norm_epsilon,
    "feed_forward_proj": kinds[0],
    "vocab_size": config.vocab_size,
    "n_positions": config.max_length,
    "pad_token_id": config.pad_id,
    "dropout_rate": 0.0,
  }


# Of a T5 with a decoder, only the encoder is read. Its table of tokens may be in the file twice.
IGNORED = (r"^decoder\.", r"^lm_head\.", r"^encoder\.embed_tokens\.")
T5 = Architecture("T5EncoderModel", read, write, rules, IGNORED)
