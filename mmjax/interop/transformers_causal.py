"""Mapping of transformers' causal language models: GPT2LMHeadModel, LlamaForCausalLM and Qwen2ForCausalLM."""

import functools
from typing import Any, Literal

from mmjax.interop.architecture import ACTIVATIONS, THEIR_ACTIVATIONS, Architecture, Entries, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm
from mmjax.models.gpt import GptConfig
from mmjax.nn.words import WordsConfig

_BLOCK = r"^decoder/block_(\d+)/"
_OUTPUT = Rule("^words/output_embedding$", "lm_head.weight")


def _conv1d(ours: str, theirs: str, part: int = 0) -> tuple[Rule, Rule]:
  """Rules of GPT-2's linear layer: weight [in, out] and bias."""
  return (
    Rule(f"{_BLOCK}{ours}/kernel$", rf"transformer.h.\1.{theirs}.weight", part=part, axis=1),
    Rule(f"{_BLOCK}{ours}/bias$", rf"transformer.h.\1.{theirs}.bias", part=part),
  )


def gpt2_rules(config: GptConfig) -> tuple[Rule, ...]:
  """Mapping rules of GPT2LMHeadModel."""
  del config
  return joined(
    *(_conv1d(f"attention/{name}", "attn.c_attn", part) for part, name in enumerate(("query", "key", "value"))),
    _conv1d("attention/out", "attn.c_proj"),
    _conv1d("mlp/up", "mlp.c_fc"),
    _conv1d("mlp/down", "mlp.c_proj"),
    norm(f"{_BLOCK}norm1", r"transformer.h.\1.ln_1"),
    norm(f"{_BLOCK}norm2", r"transformer.h.\1.ln_2"),
    norm("^decoder/norm", "transformer.ln_f"),
    (
      Rule("^words/token_embedding$", "transformer.wte.weight"),
      Rule("^words/position_embedding$", "transformer.wpe.weight"),
      _OUTPUT,
    ),
  )


def llama_rules(config: GptConfig) -> tuple[Rule, ...]:
  """Mapping rules of LlamaForCausalLM and Qwen2ForCausalLM."""
  del config
  return joined(
    *(
      linear(f"{_BLOCK}attention/{name}", rf"model.layers.\1.self_attn.{name[0]}_proj")
      for name in ("query", "key", "value", "out")
    ),
    *(linear(f"{_BLOCK}mlp/{name}", rf"model.layers.\1.mlp.{name}_proj") for name in ("gate", "up", "down")),
    norm(f"{_BLOCK}norm1", r"model.layers.\1.input_layernorm"),
    norm(f"{_BLOCK}norm2", r"model.layers.\1.post_attention_layernorm"),
    norm("^decoder/norm", "model.norm"),
    (Rule("^words/token_embedding$", "model.embed_tokens.weight"), _OUTPUT),
  )


def llama_config(**fields: Any) -> GptConfig:
  """Configuration of a Llama-like model.

  Args:
    **fields: the size and other fields of WordsConfig.
  """
  defaults: dict[str, Any] = dict(positions="rotary", rms_norm=True, linear_bias=False, mlp_gated=True)
  return GptConfig(WordsConfig(**defaults | dict(activation="silu", tied=False) | fields))


def read_gpt2(fields: Fields, entries: Entries) -> GptConfig:
  """Read the configuration of GPT2LMHeadModel. The tensors are not needed."""
  del entries
  fields.only("scale_attn_by_inverse_layer_idx", False, False)
  fields.only("add_cross_attention", False, False)
  return GptConfig(
    WordsConfig(
      width=fields.integer("n_embd", 768),
      mlp_dim=fields.integer("n_inner") if "n_inner" in fields else None,
      depth=fields.integer("n_layer", 12),
      num_heads=fields.integer("n_head", 12),
      activation=fields.choice("activation_function", ACTIVATIONS, "gelu_new"),
      norm_epsilon=fields.number("layer_norm_epsilon", 1e-5),
      scaled_attention=fields.flag("scale_attn_weights", True),
      max_length=fields.integer("n_positions", 1024),
      **_vocabulary(fields, vocab_size=50_257, eos_id=50_256, tied=True),
    )
  )


def read_llama(fields: Fields, entries: Entries) -> GptConfig:
  """Read the configuration of LlamaForCausalLM. The tensors are not needed."""
  del entries
  fields.only("attention_bias", False, False)
  fields.only("mlp_bias", False, False)
  head_dim = fields.integer("head_dim") if "head_dim" in fields else None
  return _read(fields, heads=None, length=2048, vocab_size=32_000, eos_id=2, head_dim=head_dim)


def read_qwen2(fields: Fields, entries: Entries) -> GptConfig:
  """Read the configuration of Qwen2ForCausalLM. The tensors are not needed."""
  del entries
  fields.only("use_sliding_window", False, False)
  kinds = fields.get("layer_types") or []
  if not isinstance(kinds, list) or any(kind != "full_attention" for kind in kinds):
    raise fields.wrong("layer_types", "full_attention in every layer: mmjax has no sliding window")
  return _read(fields, heads=32, length=32_768, vocab_size=151_936, eos_id=None, attention_bias="only")


def _read(
  fields: Fields,
  *,
  heads: int | None,
  length: int,
  vocab_size: int,
  eos_id: int | None,
  head_dim: int | None = None,
  attention_bias: Literal["all", "only"] = "all",
) -> GptConfig:
  """Read the fields that Llama and Qwen2 share. The arguments are defaults, and the fields that one of them has."""
  num_heads = fields.integer("num_attention_heads", 32)
  key_heads = fields.integer("num_key_value_heads", heads or num_heads)
  return llama_config(
    width=fields.integer("hidden_size", 4096),
    mlp_dim=fields.integer("intermediate_size"),
    depth=fields.integer("num_hidden_layers", 32),
    num_heads=num_heads,
    key_heads=None if key_heads == num_heads else key_heads,
    head_dim=head_dim,
    attention_bias=attention_bias,
    activation=fields.choice("hidden_act", ACTIVATIONS, "silu"),
    norm_epsilon=fields.number("rms_norm_eps", 1e-6),
    max_length=fields.integer("max_position_embeddings", length),
    rotary_temperature=_temperature(fields),
    **_vocabulary(fields, vocab_size=vocab_size, eos_id=eos_id, tied=False),
  )


def _temperature(fields: Fields) -> float:
  """Slowest rotation, as transformers 5 writes it (rope_parameters) or as earlier versions do (rope_theta)."""
  fields.only("rope_scaling", None, None)
  earlier, parameters = fields.number("rope_theta", 10_000.0), fields.object("rope_parameters")
  parameters.only("rope_type", "default", "default")
  return parameters.number("rope_theta", earlier)


def _vocabulary(fields: Fields, *, vocab_size: int, eos_id: int | None, tied: bool) -> dict[str, Any]:
  """Fields of the vocabulary. Without a token for padding, texts are padded with the end token."""
  if fields.values.get("eos_token_id", 0) is None:
    raise fields.wrong("eos_token_id", "the number of a token: texts end with it")
  end = fields.integer("eos_token_id", eos_id, least=0)
  return {
    "vocab_size": fields.integer("vocab_size", vocab_size),
    "eos_id": end,
    "pad_id": fields.integer("pad_token_id", end, least=0),
    "tied": fields.flag("tie_word_embeddings", tied),
  }


def write_gpt2(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a language model."""
  c = _words("GPT2LMHeadModel", config)
  return {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "n_embd": c.width,
    "n_inner": c.mlp_dim,
    "n_layer": c.depth,
    "n_head": c.num_heads,
    "n_positions": c.max_length,
    "activation_function": THEIR_ACTIVATIONS[c.activation],
    "layer_norm_epsilon": c.norm_epsilon,
    "scale_attn_weights": c.scaled_attention,
    **_write_vocabulary(c),
    **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
  }


def write_llama(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a language model, or not one that Llama can be."""
  c = _words("LlamaForCausalLM", config)
  if c.width % c.num_heads:
    raise InteropError(f"LlamaForCausalLM needs a width that num_heads divides, not {c.width} and {c.num_heads}")
  biases = {"attention_bias": False, "mlp_bias": False}
  return _write(c, "LlamaForCausalLM", "llama") | biases | {"head_dim": c.attention_width // c.num_heads}


def write_qwen2(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a language model."""
  return _write(_words("Qwen2ForCausalLM", config), "Qwen2ForCausalLM", "qwen2") | {"use_sliding_window": False}


def _write(c: WordsConfig, name: str, kind: str) -> dict[str, Any]:
  return {
    "architectures": [name],
    "model_type": kind,
    "hidden_size": c.width,
    "intermediate_size": c.hidden,
    "num_hidden_layers": c.depth,
    "num_attention_heads": c.num_heads,
    "num_key_value_heads": c.key_heads or c.num_heads,
    "hidden_act": THEIR_ACTIVATIONS[c.activation],
    "rms_norm_eps": c.norm_epsilon,
    "max_position_embeddings": c.max_length,
    "rope_theta": c.rotary_temperature,
    **_write_vocabulary(c),
  }


def _write_vocabulary(c: WordsConfig) -> dict[str, Any]:
  ids = {"bos_token_id": None, "eos_token_id": c.eos_id, "pad_token_id": c.pad_id}
  return {"vocab_size": c.vocab_size, "tie_word_embeddings": c.tied, **ids}


def _words(name: str, config: Any) -> WordsConfig:
  if not isinstance(config, GptConfig):
    raise wrong_kind(name, "a causal language model", config)
  return config.text


# Tied scores may be in the file as well. Older files have buffers: the causal mask, and the frequencies.
_IGNORED = (r"^lm_head\.", r"\.attn\.(masked_)?bias$", r"\.rotary_emb\.inv_freq$")
_GPT2_FIELDS = {
  **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), "used only in training"),
  "n_ctx": "n_positions decides",
  "reorder_and_upcast_attn": "mmjax's softmax is in float32",
}
_GPT2_FIELDS |= {
  f"summary_{name}": "used only by a head for one task"
  for name in ("type", "use_proj", "activation", "proj_to_labels", "first_dropout")
}
_LLAMA_FIELDS = {
  "pretraining_tp": "an implementation with the same results",
  **dict.fromkeys(("rope_interleaved", "is_llama_config", "transformers.js_config"), "transformers does not read it"),
}
_QWEN_FIELDS = dict.fromkeys(("sliding_window", "max_window_layers"), "used only with use_sliding_window")
_BARE = (r"^(?=(wte|wpe|h|ln_f)\.)", "transformer.")  # files of GPT2Model, as GPT-2 was published

GPT2 = Architecture(
  "GPT2LMHeadModel", read_gpt2, write_gpt2, gpt2_rules, _IGNORED, (_BARE,), without_effect=_GPT2_FIELDS
)
_llama_like = functools.partial(Architecture, rules=llama_rules, ignored=_IGNORED)
LLAMA = _llama_like("LlamaForCausalLM", read_llama, write_llama, without_effect=_LLAMA_FIELDS)
QWEN2 = _llama_like("Qwen2ForCausalLM", read_qwen2, write_qwen2, without_effect=_QWEN_FIELDS)
