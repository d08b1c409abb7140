"""Mapping of T5 and mT5 (Raffel et al. 2020): T5ForConditionalGeneration, and T5EncoderModel."""

from typing import Any, Literal

from mmjax.encoders import TextConfig
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, under
from mmjax.models.blip2_captioner import Blip2CaptionerConfig
from mmjax.models.seq2seq import Seq2SeqConfig
from mmjax.nn.transformer import TransformerConfig
from mmjax.nn.words import WordsConfig

_TABLE = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"


def stack_rules(config: TransformerConfig, stack: str = "transformer", *, reads: bool = False) -> tuple[Rule, ...]:
  """Mapping rules of the encoder or the decoder, without the token embeddings.

  Args:
    config: configuration of the stack.
    stack: its path.
    reads: True for the decoder, which reads the encoder's tokens between self-attention and the MLP.
  """
  ours, theirs = rf"{stack}/block_(\d+)/", r"block.\1.layer."
  first, last = ("up", "wi_1") if config.mlp_gated else ("up", "wi"), 1 + reads
  attention = lambda mine, yours: (
    linear(f"{ours}{mine}/{name}", f"{theirs}{yours}.{name[0]}") for name in ("query", "key", "value", "out")
  )
  return joined(
    *attention("attention", "0.SelfAttention"),
    *(attention("cross_attention", "1.EncDecAttention") if reads else ()),
    *(
      linear(f"{ours}mlp/{mine}", f"{theirs}{last}.DenseReluDense.{yours}")
      for mine, yours in (first, ("gate", "wi_0"), ("down", "wo"))
    ),
    norm(f"{ours}norm1", f"{theirs}0.layer_norm"),
    norm(f"{ours}norm_cross", f"{theirs}1.layer_norm") if reads else (),
    norm(f"{ours}norm2", f"{theirs}{last}.layer_norm"),
    norm(f"{stack}/norm", "final_layer_norm"),
    (Rule(f"{stack}/relative_bias/table$", _TABLE),),
  )


def rules(config: TextConfig) -> tuple[Rule, ...]:
  """Mapping rules of T5EncoderModel."""
  return joined(under("", "encoder.", stack_rules(config)), (Rule("^token_embedding$", "shared.weight"),))


def writer_rules(config: Seq2SeqConfig | Blip2CaptionerConfig) -> tuple[Rule, ...]:
  """Mapping rules of T5ForConditionalGeneration."""
  return joined(
    under("", "encoder.", stack_rules(config.text, "encoder")),
    under("", "decoder.", stack_rules(config.text, "decoder", reads=True)),
    (
      Rule("^words/token_embedding$", "shared.weight"),
      Rule("^words/output_embedding$", "lm_head.weight"),
    ),
  )


# Activation, and whether a gate has it. "gated-gelu" is GELU's tanh approximation, as transformers has it.
_FEED_FORWARD: dict[str, tuple[Literal["relu", "gelu", "gelu_tanh", "silu"], bool]] = {
  "relu": ("relu", False),
  "gelu": ("gelu", False),
  "gelu_new": ("gelu_tanh", False),
  "gated-relu": ("relu", True),
  "gated-gelu": ("gelu_tanh", True),
  "gated-silu": ("silu", True),
}


_STACK: dict[str, Any] = dict(
  positions="none",
  rms_norm=True,
  linear_bias=False,
  scaled_attention=False,
  relative_buckets=32,
  norm_epsilon=1e-6,
  max_length=512,
)
"""Fields of both stacks."""


def t5_config(**fields: Any) -> TextConfig:
  """Configuration of T5's encoder. It has no pooler, so it pools by the mean over the tokens.

  Args:
    **fields: the size, the activation and other fields of TextConfig.
  """
  defaults: dict[str, Any] = _STACK | dict(causal=False, pool="mean")
  return TextConfig(**(defaults | fields))


def read(fields: Fields, entries: Entries) -> TextConfig:
  """Read the configuration of the encoder of T5 or mT5. The tensors are not needed."""
  del entries
  return t5_config(**_read(fields))


def read_writer(fields: Fields, entries: Entries) -> Seq2SeqConfig:
  """Read the configuration of T5 or mT5. If the file has a table for the scores of words, they are not tied.

  T5 1.0 divides the tied scores by sqrt(width); tie_word_embeddings tells it from T5 1.1, which does not. Since version
  5, transformers writes scale_decoder_outputs instead.
  """
  fields.only("is_encoder_decoder", True, True)
  scaled = fields.get("tie_word_embeddings") is not False and fields.get("model_type") != "mt5"
  shared, pad = _read(fields), fields.integer("pad_token_id", 0, least=0)
  return Seq2SeqConfig(
    WordsConfig(
      **_STACK | shared | {"depth": fields.integer("num_decoder_layers", shared["depth"])},
      eos_id=fields.integer("eos_token_id", 1, least=0),
      tied="lm_head.weight" not in entries,
      scaled_logits=fields.flag("scale_decoder_outputs", scaled),
    ),
    encoder_depth=shared["depth"],
    begin_id=fields.integer("decoder_start_token_id", pad, least=0),
  )


def _read(fields: Fields) -> dict[str, Any]:
  """Read the fields that both stacks share. The depth is the encoder's."""
  fields.only("is_decoder", False, False)
  newer = fields.get("model_type") == "mt5"
  activation, gate = fields.choice("feed_forward_proj", _FEED_FORWARD, "gated-gelu" if newer else "relu")
  for name, value in (("is_gated_act", gate), ("dense_act_fn", _dense(activation))):  # derived from feed_forward_proj
    fields.only(name, value, value)
  return {
    "width": fields.integer("d_model", 512),
    "mlp_dim": fields.integer("d_ff", 1024 if newer else 2048),
    "depth": fields.integer("num_layers", 8 if newer else 6),
    "num_heads": fields.integer("num_heads", 6 if newer else 8),
    "head_dim": fields.integer("d_kv", 64),
    "relative_buckets": fields.integer("relative_attention_num_buckets", 32, least=4),
    "relative_distance": fields.integer("relative_attention_max_distance", 128),
    "norm_epsilon": fields.number("layer_norm_epsilon", 1e-6),
    "vocab_size": fields.integer("vocab_size", 250_112 if newer else 32_128),
    "max_length": fields.integer("n_positions", 512),  # transformers has no limit
    "pad_id": fields.integer("pad_token_id", 0, least=0),
    "activation": activation,
    "mlp_gated": gate,
  }


def _dense(activation: str) -> str:
  return "gelu_new" if activation == "gelu_tanh" else activation


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not T5's encoder."""
  if not isinstance(config, TextConfig):
    raise wrong_kind(T5.name, "a text transformer alone", config)
  return _write(T5.name, config)


def write_writer(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not an encoder-decoder for texts."""
  if not isinstance(config, Seq2SeqConfig):
    raise wrong_kind(T5_WRITER.name, "Seq2SeqConfig", config)
  return write_words(config.text, config.encoder_depth, config.begin_id)


def write_words(text: WordsConfig, encoder_depth: int, begin_id: int) -> dict[str, Any]:
  """Fields of T5ForConditionalGeneration. Raises InteropError if T5 has no such MLP.

  Args:
    text: the decoder.
    encoder_depth: number of blocks of the encoder.
    begin_id: token with which every text begins.
  """
  return _write(T5_WRITER.name, text) | {
    "num_layers": encoder_depth,
    "num_decoder_layers": text.depth,
    "decoder_start_token_id": begin_id,
    "eos_token_id": text.eos_id,
    "tie_word_embeddings": text.scaled_logits,  # before version 5, transformers has both or neither
    "scale_decoder_outputs": text.scaled_logits,
    "is_encoder_decoder": True,
  }


def _write(name: str, config: TextConfig | WordsConfig) -> dict[str, Any]:
  """Write the fields that both stacks share."""
  kinds = [name for name, kind in _FEED_FORWARD.items() if kind == (config.activation, config.mlp_gated)]
  if not kinds:
    gate = " with a gate" if config.mlp_gated else ""
    raise InteropError(f"{name} has no MLP with activation={config.activation!r}{gate}")
  return {
    "architectures": [name],
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


# The table of tokens may be in the file three times. Older files have a bias of cross-attention that is not used.
_IGNORED = (r"^(encoder|decoder)\.embed_tokens\.", r"EncDecAttention\.relative_attention_bias\.")
T5 = Architecture("T5EncoderModel", read, write, rules, (*_IGNORED, r"^decoder\.", r"^lm_head\."))
T5_WRITER = Architecture("T5ForConditionalGeneration", read_writer, write_writer, writer_rules, _IGNORED)
