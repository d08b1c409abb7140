"""The towers of CLIP and SigLIP in transformers: their tensors and their fields. Several classes consist of them."""

import dataclasses
import math
from typing import Any

from mmjax.encoders import NaFlexConfig, TextConfig, ViTConfig
from mmjax.interop.architecture import ACTIVATIONS, THEIR_ACTIVATIONS, sides
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches
from mmjax.nn.transformer import TransformerConfig

CONVOLUTION = "o c p q -> (p q c) o"
# Siglip2 takes patches, not images: its patch embedding is a linear layer. Pixels in a patch are ordered as here.
LINEAR = "o i -> i o"
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
TEXT = joined(
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
IGNORED = (r"embeddings\.position_ids$",)


def clip_image(config: ViTConfig) -> tuple[Rule, ...]:
  """Mapping rules of CLIP's image tower."""
  return joined(
    _BLOCKS,
    patches("stem/projection", "embeddings.patch_embedding", config.patch_size),
    norm("transformer/input_norm", "pre_layrnorm"),
    norm("transformer/norm", "post_layernorm"),
    (
      Rule("class_token$", "embeddings.class_embedding", "d -> 1 d"),
      Rule("class_position$", _POSITIONS, part=0),
      Rule("position_embedding$", _POSITIONS, part=1),
    ),
  )


def siglip_image(config: ViTConfig, patch_layout: str = CONVOLUTION) -> tuple[Rule, ...]:
  """Mapping rules of SigLIP's image tower. `patch_layout` is the layout of the patch embedding's kernel."""
  return joined(
    _BLOCKS,
    patches("stem/projection", "embeddings.patch_embedding", config.patch_size, patch_layout),
    norm("transformer/norm", "post_layernorm"),
    (Rule("position_embedding$", _POSITIONS),),
    _MAP_HEAD,
  )


def read_clip_image(vision: Fields) -> ViTConfig:
  """Read the configuration of CLIP's image tower."""
  vision.only("num_channels", 3, 3)
  return ViTConfig(
    **_size(vision, 768, 3072, 12),
    activation=vision.choice("hidden_act", ACTIVATIONS, "quick_gelu"),
    norm_epsilon=vision.number("layer_norm_eps", 1e-5),
    **sides(vision.square("image_size", 224), vision.square("patch_size", 32)),
    pool="cls",
    input_norm=True,
    class_position=True,
    stem_bias=False,
  )


def read_clip_text(text: Fields) -> TextConfig:
  """Read the configuration of CLIP's text tower."""
  eos_id = text.integer("eos_token_id", 49407, least=0)
  return TextConfig(
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
  )


def write_clip_text(text: TextConfig) -> dict[str, Any]:
  """Write the fields of CLIP's text tower. Raises InteropError if the id of its end token has another meaning there."""
  eos = 2 if text.pool == "argmax" else text.eos_id
  if text.pool != "argmax" and eos == 2:
    raise InteropError("CLIPModel pools at the largest id if eos_token_id is 2; give the end token another id")
  return write_text(text) | {"eos_token_id": eos}


def read_siglip_image(vision: Fields, image_size: int) -> ViTConfig:
  """Read the configuration of SigLIP's image tower."""
  vision.only("num_channels", 3, 3)
  return ViTConfig(
    **_size(vision, 768, 3072, 12),
    activation=vision.choice("hidden_act", ACTIVATIONS, "gelu_pytorch_tanh"),
    norm_epsilon=vision.number("layer_norm_eps", 1e-6),
    **sides(image_size, vision.square("patch_size", 16)),
    pool="map",
  )


def read_siglip2_image(vision: Fields) -> NaFlexConfig:
  """Read the configuration of Siglip2's image tower, which takes images of any shape."""
  number, side = vision.integer("num_patches", 256), vision.square("patch_size", 16)
  if math.isqrt(number) ** 2 != number:
    raise vision.wrong("num_patches", "a square number: there is a position embedding for each patch of a square image")
  square = read_siglip_image(vision, math.isqrt(number) * side)
  fields = {field.name: getattr(square, field.name) for field in dataclasses.fields(square)}
  return NaFlexConfig(**fields, patches=number)


def read_siglip_text(text: Fields) -> TextConfig:
  """Read the configuration of SigLIP's text tower, without its head."""
  return TextConfig(
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
  )


def _size(fields: Fields, width: int, hidden: int, heads: int) -> dict[str, Any]:
  return {
    "width": fields.integer("hidden_size", width),
    "mlp_dim": fields.integer("intermediate_size", hidden),
    "depth": fields.integer("num_hidden_layers", 12),
    "num_heads": fields.integer("num_attention_heads", heads),
  }


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


def write_vision(c: ViTConfig) -> dict[str, Any]:
  """Write the fields of an image tower."""
  return write_size(c) | {"image_size": c.image_size, "patch_size": c.patch_size, "num_channels": 3}


def write_text(c: TextConfig) -> dict[str, Any]:
  """Write the fields of a text tower."""
  ids = {"pad_token_id": c.pad_id, "bos_token_id": None}
  return write_size(c) | {"vocab_size": c.vocab_size, "max_position_embeddings": c.max_length} | ids
