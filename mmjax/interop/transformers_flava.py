"""Mapping of transformers' FlavaModel (Singh et al. 2022), and of its towers alone.

FlavaImageModel is a ViT, FlavaTextModel is BERT with pre-norm, and the multimodal encoder reads the tokens of both.
"""

import dataclasses
import math
from typing import Any

from mmjax.encoders import TextConfig
from mmjax.interop.architecture import ACTIVATIONS, Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, under
from mmjax.interop.transformers_parts import write_size
from mmjax.interop.transformers_single import VIT, bert_rules, pre_norm_layers, read_bert, read_size, write_bert
from mmjax.models.flava_transformers import PublishedFlavaConfig
from mmjax.nn.transformer import TransformerConfig

_HIDING = dict.fromkeys(("mask_token", "vocab_size"), "used only to hide patches and to guess them")
FLAVA_IMAGE = dataclasses.replace(VIT, name="FlavaImageModel", without_effect=_HIDING)


def _rules(config: TextConfig) -> tuple[Rule, ...]:
  return joined(pre_norm_layers(), norm("^transformer/norm", "layernorm"), bert_rules(config))


def _read(fields: Fields, entries: Entries) -> TextConfig:
  fields.only("qkv_bias", True, True)
  return dataclasses.replace(read_bert(fields, entries), norm="pre")


def _write(config: Any) -> dict[str, Any]:
  return write_bert(config) | {"architectures": ["FlavaTextModel"], "model_type": "flava_text_model"}


FLAVA_TEXT = Architecture("FlavaTextModel", _read, _write, _rules, VIT.ignored)

_POOLER: Any = {"pooler.dense.weight": None}  # each of the three encoders has a pooler
_PROJECTIONS = (("image_projection", "image_projection"), ("text_projection", "text_projection"))
_INPUTS = (("input_0_projection", "image_to_mm_projection"), ("input_1_projection", "text_to_mm_projection"))


def _whole_rules(config: PublishedFlavaConfig) -> tuple[Rule, ...]:
  return joined(
    under("image/", "image_model.", VIT.rules(config.image)),
    under("text/", "text_model.", _rules(config.text)),
    under("fusion/joint/", "multimodal_model.", pre_norm_layers()),
    norm("^fusion/joint/transformer/norm", "multimodal_model.layernorm"),
    linear("^tanh_pool/dense", "multimodal_model.pooler.dense"),
    *(linear(f"^{ours}", theirs) for ours, theirs in _PROJECTIONS),
    *(linear(f"^fusion/{ours}", theirs) for ours, theirs in _INPUTS),
    (
      Rule("^fusion/class_token$", "multimodal_model.cls_token", "1 n d -> n d"),
      Rule("^logit_scale$", "logit_scale"),
    ),
  )


def _read_whole(fields: Fields, entries: Entries) -> PublishedFlavaConfig:
  """Read the configuration of FlavaModel. The tensors are not needed."""
  del entries
  image: Any = VIT.read(fields.object("image_config"), _POOLER)
  joint = fields.object("multimodal_config")
  for name in ("qkv_bias", "use_cls_token"):
    joint.only(name, True, True)
  return PublishedFlavaConfig(
    image=image,
    text=_read(fields.object("text_config"), _POOLER),
    fusion=TransformerConfig(
      **read_size(joint) | {"depth": joint.integer("num_hidden_layers", 6)},
      activation=joint.choice("hidden_act", ACTIVATIONS, "gelu"),
      norm_epsilon=joint.number("layer_norm_eps", 1e-12),
    ),
    embed_dim=fields.integer("projection_dim", 768),
    init_logit_scale=math.exp(min(20.0, fields.number("logit_scale_init_value", 2.6592))),
    max_logit_scale=math.inf,
  )


def _write_whole(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a PublishedFlava."""
  if not isinstance(config, PublishedFlavaConfig):
    raise wrong_kind("FlavaModel", "PublishedFlavaConfig", config)
  joint = {"model_type": "flava_multimodal_model", "use_cls_token": True, "qkv_bias": True}
  return {
    "architectures": ["FlavaModel"],
    "model_type": "flava",
    "projection_dim": config.embed_dim,
    "hidden_size": config.fusion.width,
    "logit_scale_init_value": math.log(config.init_logit_scale or 1.0),
    "image_config": VIT.write(config.image)
    | {"model_type": "flava_image_model", "architectures": None, "mask_token": False},
    "text_config": _write(config.text) | {"architectures": None},
    "multimodal_config": joint | write_size(config.fusion),
  }


_LOSSES = ("mim", "mlm", "itm", "global_contrastive", "mmm_image", "mmm_text")
_UNUSED = (
  _HIDING
  | dict.fromkeys((f"{name}_weight" for name in _LOSSES), "used only in training")
  | dict.fromkeys(("ce_ignore_index", "global_backprop_contrastive", "return_loss"), "used only in training")
  | dict.fromkeys(("skip_unmasked_multimodal_encoder", "init_codebook"), "used only in training")
  | {"image_codebook_config": "used only to guess patches", "hidden_size": "the parts have their own"}
  | {"layer_norm_eps": "the parts have their own"}
)
# Of FlavaForPreTraining, the encoders are read.
_HEADS = (r"^(mim_head|mlm_head|itm_head|mmm_image_head|mmm_text_head|image_codebook)\.", *VIT.ignored)
FLAVA = Architecture(
  "FlavaModel", _read_whole, _write_whole, _whole_rules, _HEADS, ((r"^flava\.", ""),), without_effect=_UNUSED
)
