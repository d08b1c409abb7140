"""Mapping of open_clip's CoCa: image tower, text tower and multimodal decoder."""

import math
from typing import Any

from mmjax.encoders.vit import ViTConfig
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, norm, under
from mmjax.interop.open_clip import read_scale
from mmjax.interop.open_clip_towers import (
  BUFFERS,
  TEXTS,
  blocks,
  fused,
  image_rules,
  mlp,
  only_plain,
  read_image,
  write_image,
)
from mmjax.models.coca_open_clip import OpenClipCocaConfig
from mmjax.nn.words import WordsConfig

_MODEL = {"embed_dim", "vision_cfg", "text_cfg", "multimodal_cfg", "quick_gelu", "init_logit_scale", "custom_text"}
_MODEL |= {"init_logit_bias", "nonscalar_logit_scale", "pad_id"}  # pad_id: padding of open_clip's generation
_MULTIMODAL = TEXTS | {"dim_head", "n_queries", "attn_pooler_heads"}  # open_clip does not use these three
_ONLY: dict[str, Any] = {"no_causal_mask": False, "hf_model_name": None, "proj_type": "linear", "proj_bias": False}
# open_clip's multimodal decoder ignores these fields and always uses the values below. In mmjax both halves share one
# configuration, so the text tower must have the same values.
_ONLY |= {"mlp_ratio": 4, "act_kwargs": None, "norm_kwargs": None, "ls_init_value": None}
_EPSILON = 1e-5


def rules(config: OpenClipCocaConfig) -> tuple[Rule, ...]:
  """Mapping rules of a model."""
  ours, theirs = r"^multimodal/block_(\d+)/", r"text_decoder.cross_attn.\1."
  return joined(
    under("image/", "visual.", image_rules(config.image)),
    blocks("^unimodal", "text.transformer"),
    blocks("^multimodal", "text_decoder"),
    fused(f"{ours}cross_attention", f"{theirs}attn"),
    norm(f"{ours}norm_cross", f"{theirs}ln_1"),
    norm(f"{ours}norm_context", f"{theirs}ln_1_kv"),
    norm(f"{ours}norm_cross_mlp", f"{theirs}ln_2"),
    mlp(f"{ours}cross_mlp", f"{theirs}mlp"),
    norm("^class_norm", "text.ln_final"),
    norm("^multimodal/norm", "text_decoder.ln_final"),
    (
      Rule("^words/token_embedding$", "text.token_embedding.weight"),
      Rule("^words/position_embedding$", "text.positional_embedding", part=0),
      Rule("^class_position$", "text.positional_embedding", part=1),
      Rule("^class_token$", "text.cls_emb", "d -> 1 d"),
      Rule("^text_projection/kernel$", "text.text_projection"),
      Rule("^image_projection/kernel$", "visual.proj"),
      Rule("^word_scores/kernel$", "text_decoder.text_projection"),
      Rule("^logit_scale$", "logit_scale"),
    ),
  )


def read(fields: Fields, entries: Entries) -> OpenClipCocaConfig:
  """Read the configuration from model_cfg. The tensors are not needed."""
  del entries
  fields.known(_MODEL)
  fields.only("nonscalar_logit_scale", False, False)
  fields.only("init_logit_bias", None, None)
  quick, embed_dim = fields.flag("quick_gelu", False), fields.integer("embed_dim")
  vision, multimodal = fields.object("vision_cfg"), fields.object("multimodal_cfg")
  image = read_image(vision, quick, embed_dim)
  if not isinstance(image, ViTConfig):
    raise InteropError(f"{vision.where}: layers is a list (a ResNet); of CoCa's image towers, mmjax reads only ViTs")
  text = _read_text(fields.object("text_cfg"), quick)
  _check_image(vision, image, text.width)
  multimodal.known(_MULTIMODAL)
  only_plain(multimodal)
  multimodal.only("ls_init_value", None, None)
  for name, value, default in (
    ("width", text.width, 512),
    ("heads", text.num_heads, 8),
    ("context_length", text.max_length, 77),
  ):
    multimodal.only(name, value, default)  # the text tower and the decoder are halves of one stack
  return OpenClipCocaConfig(
    image=image,
    text=text,
    multimodal_depth=multimodal.integer("layers", 12),
    embed_dim=embed_dim,
    init_logit_scale=read_scale(fields),
    max_logit_scale=math.inf,
  )


def _check_image(vision: Fields, image: ViTConfig, text_width: int) -> None:
  if image.pool != "queries":
    vision.only("final_ln_after_pool", False, False)  # it would leave the patches that captions read without a norm
    vision.only("width", text_width, 768)  # open_clip's captions read patches of the width of the text only


def _read_text(text: Fields, quick: bool) -> WordsConfig:
  text.known(TEXTS)
  only_plain(text)
  text.only("embed_cls", True, False)
  for name, value in _ONLY.items():
    text.only(name, value, value)
  vocab_size = text.integer("vocab_size", 49408)
  return WordsConfig(
    width=text.integer("width", 512),
    depth=text.integer("layers", 12),
    num_heads=text.integer("heads", 8),
    activation="quick_gelu" if quick else "gelu",
    norm_epsilon=_EPSILON,
    vocab_size=vocab_size,
    max_length=text.integer("context_length", 77),
    pad_id=text.integer("pad_id", 0, least=0),
    eos_id=text.integer("eos_id", vocab_size - 1, least=0),  # end token of captions; CLIP's is the last token
  )


def write(config: Any) -> dict[str, Any]:
  """Write model_cfg. Raises InteropError if the model is not an OpenClipCoca."""
  if not isinstance(config, OpenClipCocaConfig):
    raise wrong_kind("open_clip's CoCa", "a CoCa with open_clip's layers (OpenClipCocaConfig)", config)
  text = config.text
  words = {"context_length": text.max_length, "vocab_size": text.vocab_size, "heads": text.num_heads}
  half = {"width": text.width} | words
  return {
    "embed_dim": config.embed_dim,
    "quick_gelu": text.activation == "quick_gelu",
    "custom_text": True,
    "vision_cfg": write_image(config.image) | {"output_tokens": True},
    "text_cfg": half
    | {"layers": text.depth, "embed_cls": True, "output_tokens": True, "pad_id": text.pad_id}
    | {"eos_id": text.eos_id},
    "multimodal_cfg": half | {"layers": config.multimodal_depth},
    "init_logit_scale": math.log(config.init_logit_scale),
  }


OPEN_CLIP_COCA = Architecture("open_clip's CoCa", read, write, rules, BUFFERS)
