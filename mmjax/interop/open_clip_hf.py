"""Text towers that open_clip takes from transformers: RoBERTa, XLM-RoBERTa, mT5 and NLLB's encoder (M2M100).

open_clip's configuration has only their name, and open_clip gets their sizes from the hub. They are in TOWERS here.
"""

import dataclasses
from typing import Any, Literal

from mmjax.encoders import TextConfig, bert_config
from mmjax.interop.architecture import canonical
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, under
from mmjax.interop.transformers_t5 import stack_rules, t5_config
from mmjax.interop.transformers_texts import roberta_rules
from mmjax.models.shared_space import Projection


def _roberta(vocab_size: int, **size: int) -> TextConfig:
  fields: Any = dict(norm_epsilon=1e-5, token_types=1, count_positions=True, pad_id=1, tanh_pool=False)
  return bert_config(vocab_size=vocab_size, max_length=512, mlp_dim=4 * size.get("width", 768), **fields, **size)


def _mt5(width: int, depth: int, num_heads: int, mlp_dim: int) -> TextConfig:
  size = dict(width=width, depth=depth, num_heads=num_heads, mlp_dim=mlp_dim, head_dim=64)
  return t5_config(vocab_size=250_112, activation="gelu_tanh", mlp_gated=True, **size)


def _nllb(depth: int, mlp_dim: int) -> TextConfig:
  return TextConfig(
    width=1024,
    depth=depth,
    num_heads=16,
    mlp_dim=mlp_dim,
    vocab_size=256_206,
    max_length=1024,
    causal=False,
    pool="first",
    positions="sinusoidal",
    count_positions=True,
    scale_embedding=True,
    activation="relu",
    norm_epsilon=1e-5,
    pad_id=1,
  )


TOWERS: dict[str, TextConfig] = {
  "roberta-base": _roberta(50_265),
  "roberta-large": _roberta(50_265, width=1024, depth=24, num_heads=16),
  "xlm-roberta-base": _roberta(250_002),
  "xlm-roberta-large": _roberta(250_002, width=1024, depth=24, num_heads=16),
  "google/mt5-small": _mt5(512, 8, 6, 1024),
  "google/mt5-base": _mt5(768, 12, 12, 2048),
  "google/mt5-large": _mt5(1024, 24, 16, 2816),
  "google/mt5-xl": _mt5(2048, 24, 32, 5120),
  "facebook/nllb-200-distilled-600M": _nllb(12, 4096),
  "facebook/nllb-200-distilled-1.3B": _nllb(24, 8192),
}
"""The text encoders of transformers that mmjax reads, by their names on the hub. Pooling is another setting."""

_KNOWN = {"hf_model_name", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type", "hf_tokenizer_name"}
_KNOWN |= {"tokenizer_mode", "tokenizer_kwargs", "context_length", "output_tokens"}
# open_clip sets these, and its transformers' towers do not read them.
_UNUSED = {"width", "heads", "layers", "vocab_size"}
_POOLERS: dict[str, Literal["mean", "pooler", "first"]] = {
  "mean_pooler": "mean",
  "cls_pooler": "pooler",
  "cls_last_hidden_state_pooler": "first",
}
_PROJECTIONS: dict[str, Projection] = {"linear": "linear", "mlp": "mlp"}


def is_hf(config: Any) -> bool:
  """True for a text tower that open_clip takes from transformers; its own is pre-norm with learned positions."""
  return isinstance(config, TextConfig) and (config.norm == "post" or config.positions != "learned")


def read(text: Fields, embed_dim: int) -> tuple[TextConfig, Projection]:
  """Read the text tower from a text_cfg with hf_model_name.

  Args:
    text: text_cfg.
    embed_dim: dimension of the embeddings.
  Returns: (configuration, projection of the text).
  Raises: InteropError: mmjax does not read this tower, or this setting of it.
  """
  name = text.text("hf_model_name")
  tower = TOWERS.get(name.removeprefix("FacebookAI/"))
  if tower is None:
    raise InteropError(
      f"{text.where}: hf_model_name is {name!r}; of transformers' text towers, mmjax reads {', '.join(TOWERS)}"
    )
  text.known(_KNOWN | _UNUSED)
  default = "cls_pooler" if tower.positions == "sinusoidal" else "mean_pooler"
  named = "hf_pooler_type" in text.values and text.get("hf_pooler_type") is None  # then it is that of the tower
  kind = text.choice("hf_pooler_type", _POOLERS, default if named else "mean_pooler")
  pooled = kind == "pooler" and tower.norm == "post"
  tower = dataclasses.replace(tower, pool="mean" if kind == "mean" else "first", tanh_pool=pooled)
  if "hf_proj_type" in text.values and text.get("hf_proj_type") is None:
    if tower.width != embed_dim:
      raise text.wrong("hf_proj_type", f"linear or mlp: {name} is {tower.width} wide, and embed_dim is {embed_dim}")
    return tower, "none"
  return tower, text.choice("hf_proj_type", _PROJECTIONS, "mlp")


def write(config: TextConfig, projection: Projection) -> dict[str, Any]:
  """Write text_cfg. Raises InteropError if no tower in TOWERS has this size."""
  mine = _unpooled(config)
  name = next((name for name, tower in TOWERS.items() if _unpooled(tower) == mine), None)
  if name is None:
    raise InteropError(
      f"open_clip takes text towers of this kind from transformers, and mmjax knows none of this size; it knows "
      f'{", ".join(TOWERS)}. Use format="mmjax" (--to mmjax), which holds every model'
    )
  pooler = "mean_pooler" if config.pool == "mean" else "cls_last_hidden_state_pooler"
  pooler = "cls_pooler" if config.tanh_pool else pooler
  return {
    "hf_model_name": name,
    "hf_model_pretrained": False,
    "hf_pooler_type": pooler,
    "hf_proj_type": None if projection == "none" else projection,
    "hf_tokenizer_name": name,
  }


def _unpooled(config: TextConfig) -> Any:
  return dataclasses.replace(canonical(config), pool="first", tanh_pool=False, eos_id=0)


def rules(config: TextConfig) -> tuple[Rule, ...]:
  """Mapping rules of a text tower and of its projection, to the tensors under "text."."""
  if config.norm == "post":
    tower = roberta_rules(config)
  else:
    tower = joined((Rule("token_embedding$", "embed_tokens.weight"),), _pre_norm_rules(config))
  return joined(
    under("text/", "text.transformer.", tower),
    (
      Rule("^text_projection/kernel$", "text.proj.weight", "o i -> i o"),
      Rule("^text_projection/up/kernel$", "text.proj.0.weight", "o i -> i o"),
      Rule("^text_projection/down/kernel$", "text.proj.2.weight", "o i -> i o"),
    ),
  )


def _pre_norm_rules(config: TextConfig) -> tuple[Rule, ...]:
  return stack_rules(config) if config.rms_norm else _M2M


_LAYER = (r"transformer/block_(\d+)/", r"layers.\1.")
_M2M = joined(
  *(
    linear(f"{_LAYER[0]}attention/{ours}", f"{_LAYER[1]}self_attn.{theirs}")
    for ours, theirs in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj"))
  ),
  linear(f"{_LAYER[0]}mlp/up", f"{_LAYER[1]}fc1"),
  linear(f"{_LAYER[0]}mlp/down", f"{_LAYER[1]}fc2"),
  norm(f"{_LAYER[0]}norm1", f"{_LAYER[1]}self_attn_layer_norm"),
  norm(f"{_LAYER[0]}norm2", f"{_LAYER[1]}final_layer_norm"),
  norm("transformer/norm", "layer_norm"),
)
# Buffers of older versions of transformers: positions, and sines that are computed here.
BUFFERS = (r"embeddings\.position_ids$", r"^text\.transformer\.embed_positions\.")
