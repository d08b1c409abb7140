"""Mapping of transformers' OPT (Zhang et al. 2022): OPTForCausalLM. Galactica is one, too."""

from typing import Any

from mmjax.interop.architecture import ACTIVATIONS, THEIR_ACTIVATIONS, Architecture, Entries, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm
from mmjax.models.gpt import GptConfig
from mmjax.nn.words import WordsConfig

NAME = "OPTForCausalLM"
PADDING_POSITIONS = 2
_BLOCK = (r"^decoder/block_(\d+)/", r"model.decoder.layers.\1.")
_STEM = "model.decoder."


def stack_rules() -> tuple[Rule, ...]:
  """Mapping rules of the model, without its positions."""
  return joined(
    *(
      linear(f"{_BLOCK[0]}attention/{ours}", f"{_BLOCK[1]}self_attn.{theirs}_proj")
      for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("out", "out"))
    ),
    linear(f"{_BLOCK[0]}mlp/up", f"{_BLOCK[1]}fc1"),
    linear(f"{_BLOCK[0]}mlp/down", f"{_BLOCK[1]}fc2"),
    norm(f"{_BLOCK[0]}norm1", f"{_BLOCK[1]}self_attn_layer_norm"),
    norm(f"{_BLOCK[0]}norm2", f"{_BLOCK[1]}final_layer_norm"),
    norm("^decoder/norm", f"{_STEM}final_layer_norm"),
    linear("^words/input_projection", f"{_STEM}project_in"),
    linear("^words/output_projection", f"{_STEM}project_out"),
    (
      Rule("^words/token_embedding$", f"{_STEM}embed_tokens.weight"),
      Rule("^words/output_embedding$", "lm_head.weight"),
    ),
  )


def position_rules(*paths: str) -> tuple[Rule, ...]:
  """Rules of the one table of positions, from the paths of parameters that are parts of it, in their order."""
  return tuple(Rule(f"^{path}$", f"{_STEM}embed_positions.weight", part=part) for part, path in enumerate(paths))


def rules(config: GptConfig) -> tuple[Rule, ...]:
  """Mapping rules of OPTForCausalLM."""
  del config
  return joined(stack_rules(), position_rules("words/padding_position", "words/position_embedding"))


def read(fields: Fields, entries: Entries) -> GptConfig:
  """Read the configuration of OPTForCausalLM. If the file has a table for the scores of words, they are not tied."""
  for name, supported in (("_remove_final_layer_norm", False), ("layer_norm_elementwise_affine", True)):
    fields.only(name, supported, supported)
  tied = fields.flag("tie_word_embeddings", True) and "lm_head.weight" not in entries
  width, end = fields.integer("hidden_size", 768), fields.integer("eos_token_id", 2, least=0)
  dim = fields.integer("word_embed_proj_dim", width)
  return GptConfig(
    WordsConfig(
      width=width,
      mlp_dim=fields.integer("ffn_dim", 3072),
      depth=fields.integer("num_hidden_layers", 12),
      num_heads=fields.integer("num_attention_heads", 12),
      activation=fields.choice("activation_function", ACTIVATIONS, "relu"),
      norm="pre" if fields.flag("do_layer_norm_before", True) else "post",
      norm_epsilon=1e-5,
      linear_bias=fields.flag("enable_bias", True),
      vocab_size=fields.integer("vocab_size", 50_272),
      max_length=fields.integer("max_position_embeddings", 2048),
      padding_positions=PADDING_POSITIONS,
      eos_id=end,
      pad_id=fields.integer("pad_token_id", 1, least=0),
      tied=tied,  # transformers ties no scores that the file has as well
      embedding_dim=None if dim == width else dim,
    )
  )


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a language model, or not one that OPT can be."""
  if not isinstance(config, GptConfig):
    raise wrong_kind(NAME, "a causal language model", config)
  return write_words(config.text, config.text.max_length) | {"architectures": [NAME]}


def write_words(c: WordsConfig, positions: int) -> dict[str, Any]:
  """Fields of OPT.

  Args:
    c: the configuration.
    positions: longest sequence.
  Raises: InteropError: the model has norm="branch".
  """
  if c.norm == "branch":
    raise InteropError('OPT has norm="pre" or norm="post", not "branch"')
  return {
    "model_type": "opt",
    "hidden_size": c.width,
    "ffn_dim": c.hidden,
    "num_hidden_layers": c.depth,
    "num_attention_heads": c.num_heads,
    "activation_function": THEIR_ACTIVATIONS[c.activation],
    "do_layer_norm_before": c.norm == "pre",
    "enable_bias": c.linear_bias,
    "word_embed_proj_dim": c.table_width,
    "max_position_embeddings": positions,
    "vocab_size": c.vocab_size,
    "tie_word_embeddings": c.tied,
    "bos_token_id": 2,
    "eos_token_id": c.eos_id,
    "pad_token_id": c.pad_id,
    **dict.fromkeys(("dropout", "attention_dropout", "layerdrop"), 0.0),
  }


FIELDS = dict.fromkeys(("layerdrop", "init_std", "activation_dropout"), "used only in training")
# The decoder has another prefix in files of OPTModel.
OPT = Architecture(NAME, read, write, rules, renamed=((r"^(?=decoder\.)", "model."),), without_effect=FIELDS)
