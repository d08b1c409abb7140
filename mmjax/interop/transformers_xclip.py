"""Mapping of transformers' X-CLIP (Ni et al. 2022): XCLIPModel, which compares videos and texts."""

import dataclasses
import math
from typing import Any

from mmjax.interop.architecture import ACTIVATIONS, THEIR_ACTIVATIONS, Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches, under
from mmjax.interop.transformers_parts import (
  IGNORED,
  TEXT,
  read_clip_image,
  read_clip_text,
  write_clip_text,
  write_vision,
)
from mmjax.models.xclip import XClipConfig
from mmjax.nn.transformer import TransformerConfig

_PROJECTIONS = (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("out", "out_proj"))
_POSITIONS = "embeddings.position_embedding.weight"


def _layers(ours: str) -> tuple[Rule, ...]:
  """Mapping rules of CLIP's blocks. `ours` is the path of a block."""
  theirs = r"encoder.layers.\1."
  return joined(
    *(linear(f"^{ours}attention/{mine}", f"{theirs}self_attn.{yours}") for mine, yours in _PROJECTIONS),
    norm(f"^{ours}norm1", f"{theirs}layer_norm1"),
    norm(f"^{ours}norm2", f"{theirs}layer_norm2"),
    linear(f"^{ours}mlp/up", f"{theirs}mlp.fc1"),
    linear(f"^{ours}mlp/down", f"{theirs}mlp.fc2"),
  )


def _frames(config: XClipConfig) -> tuple[Rule, ...]:
  """Mapping rules of the encoder of frames."""
  message, theirs = r"^message_(\d+)/", r"encoder.layers.\1.message_"
  return joined(
    _layers(r"block_(\d+)/"),
    linear(f"{message}projection", f"{theirs}fc"),
    norm(f"{message}norm", f"{theirs}ln"),
    *(linear(f"{message}attention/{mine}", f"{theirs}attn.{yours}") for mine, yours in _PROJECTIONS),
    patches("^stem/projection", "embeddings.patch_embedding", config.image.patch_size),
    norm("^input_norm", "pre_layernorm"),
    norm("^norm", "post_layernorm"),
    (
      Rule("^class_token$", "embeddings.class_embedding", "d -> 1 d"),
      Rule("^class_position$", _POSITIONS, part=0),
      Rule("^position_embedding$", _POSITIONS, part=1),
    ),
  )


def rules(config: Any) -> tuple[Rule, ...]:
  """Mapping rules of XCLIPModel."""
  prompt, decoder = r"^prompts_(\d+)/", r"prompts_generator.decoder.\1."
  return joined(
    under("image/", "vision_model.", _frames(config)),
    under("text/", "text_model.", TEXT),
    under("order/", "mit.", _layers(r"block_(\d+)/")),
    linear("^image_projection", "visual_projection"),
    linear("^text_projection", "text_projection"),
    norm("^patch_norm", "prompts_visual_layernorm"),
    norm("^prompt_norm", "prompts_generator.layernorm"),
    *(linear(f"{prompt}attention/{name}", f"{decoder}cross_attn.{name[0]}_proj") for name in ("query", "key", "value")),
    linear(f"{prompt}attention/out", f"{decoder}cross_attn.proj"),
    norm(f"{prompt}norm1", f"{decoder}norm1"),
    norm(f"{prompt}norm2", f"{decoder}norm3"),
    linear(f"{prompt}mlp/up", f"{decoder}mlp.0"),
    linear(f"{prompt}mlp/down", f"{decoder}mlp.3"),
    (
      Rule("^order_position_embedding$", "mit.position_embedding", "1 f d -> f d"),
      Rule("^patch_projection/kernel$", "prompts_visual_projection"),
      Rule("^prompt_scale$", "prompts_generator.alpha"),
      Rule("^logit_scale$", "logit_scale"),
    ),
  )


def read(fields: Fields, entries: Entries) -> XClipConfig:
  """Read the configuration of XCLIPModel. The tensors are not needed."""
  del entries
  vision = fields.object("vision_config")
  image = read_clip_image(vision)
  dim = fields.integer("projection_dim", 512)
  if vision.integer("mit_hidden_size", 512) != dim:
    raise vision.wrong("mit_hidden_size", f"the projection_dim, {dim}")
  return XClipConfig(
    image=image,
    # The end of a text is its largest id, whatever eos_token_id is.
    text=dataclasses.replace(read_clip_text(fields.object("text_config")), pool="argmax"),
    order=TransformerConfig(
      width=dim,
      depth=vision.integer("mit_num_hidden_layers", 1),
      num_heads=vision.integer("mit_num_attention_heads", 8),
      mlp_dim=vision.integer("mit_intermediate_size", 2048),
      activation=image.activation,
      norm_epsilon=image.norm_epsilon,
    ),
    frames=vision.integer("num_frames", 8),
    prompt_depth=fields.integer("prompt_layers", 2),
    prompt_heads=fields.integer("prompt_num_attention_heads", 8),
    prompt_activation=fields.choice("prompt_hidden_act", ACTIVATIONS, "quick_gelu"),
    prompt_scale=fields.number("prompt_alpha", 0.1),
    init_logit_scale=math.exp(min(20.0, fields.number("logit_scale_init_value", 2.6592))),
    max_logit_scale=math.inf,
  )


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not an X-CLIP."""
  if not isinstance(config, XClipConfig):
    raise wrong_kind("XCLIPModel", "XClipConfig", config)
  order = config.order
  return {
    "architectures": ["XCLIPModel"],
    "model_type": "xclip",
    "projection_dim": config.embed_dim,
    "logit_scale_init_value": math.log(config.init_logit_scale),
    "prompt_layers": config.prompt_depth,
    "prompt_num_attention_heads": config.prompt_heads,
    "prompt_hidden_act": THEIR_ACTIVATIONS[config.prompt_activation],
    "prompt_alpha": config.prompt_scale,
    "vision_config": {
      "model_type": "xclip_vision_model",
      **write_vision(config.image),
      "mit_hidden_size": order.width,
      "mit_intermediate_size": order.hidden,
      "mit_num_hidden_layers": order.depth,
      "mit_num_attention_heads": order.num_heads,
      "num_frames": config.frames,
    },
    "text_config": {"model_type": "xclip_text_model"} | write_clip_text(config.text),
  }


_UNUSED = {
  "drop_path_rate": "used only in training",
  "prompt_attention_dropout": "used only in training",
  "prompt_projection_dropout": "used only in training",
}
XCLIP = Architecture("XCLIPModel", read, write, rules, IGNORED, without_effect=_UNUSED)
