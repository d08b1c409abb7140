"""Mapping of transformers' BridgeTower (Xu et al. 2023): BridgeTowerModel, and its heads for matching and embeddings.

Of a checkpoint with several heads, that of the embeddings is read, or else that of matching.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from mmjax.encoders import ViTConfig
from mmjax.interop.architecture import Architecture, Entries, sides, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches, under
from mmjax.interop.transformers_parts import write_size
from mmjax.interop.transformers_texts import read_roberta, roberta_rules
from mmjax.models.bridgetower import BridgeTowerConfig, Head
from mmjax.nn.transformer import TransformerConfig

_NAMES = {
  "none": "BridgeTowerModel",
  "match": "BridgeTowerForImageAndTextRetrieval",
  "contrastive": "BridgeTowerForContrastiveLearning",
}
_HEAD_DIM = 64  # of the image encoder, whatever its width
_OURS, _THEIRS = r"transformer/block_(\d+)/", r"transformer.resblocks.\1."
_POSITIONS = "embeddings.position_embedding.weight"


def _image(config: ViTConfig) -> tuple[Rule, ...]:
  """Mapping rules of the image encoder, which is CLIP's."""
  in_proj = f"{_THEIRS}attn.in_proj"
  return joined(
    *(
      (
        Rule(f"^{_OURS}attention/{name}/kernel$", f"{in_proj}_weight", "o i -> i o", part=part),
        Rule(f"^{_OURS}attention/{name}/bias$", f"{in_proj}_bias", part=part),
      )
      for part, name in enumerate(("query", "key", "value"))
    ),
    linear(f"^{_OURS}attention/out", f"{_THEIRS}attn.out_proj"),
    norm(f"^{_OURS}norm1", f"{_THEIRS}ln_1"),
    norm(f"^{_OURS}norm2", f"{_THEIRS}ln_2"),
    linear(f"^{_OURS}mlp/up", f"{_THEIRS}mlp.c_fc"),
    linear(f"^{_OURS}mlp/down", f"{_THEIRS}mlp.c_proj"),
    norm("^transformer/input_norm", "ln_pre"),
    norm("^transformer/norm", "ln_post"),
    patches("^stem/projection", "embeddings.patch_embedding", config.patch_size),
    (
      Rule("^class_token$", "embeddings.class_embedding", "d -> 1 d"),
      Rule("^class_position$", _POSITIONS, part=0),
      Rule("^position_embedding$", _POSITIONS, part=1),
    ),
  )


def _stack(name: str, *, shared: bool) -> tuple[Rule, ...]:
  """Mapping rules of the part of the stack for one modality."""
  block, layers = rf"^{name}_blocks_(\d+)/", rf"cross_modal_{name}_layers.\1."
  link, towers = rf"^{name}_links_(\d+)/", rf"cross_modal_{name}_link_tower.\1."
  number = "" if shared else r".\1"
  attentions = (("attention", "attention", "norm1"), ("cross_attention", "crossattention", "norm_cross"))
  return joined(
    *(
      joined(
        *(linear(f"{block}{ours}/{part}", f"{layers}{theirs}.self.{part}") for part in ("query", "key", "value")),
        linear(f"{block}{ours}/out", f"{layers}{theirs}.output.dense"),
        norm(f"{block}{its_norm}", f"{layers}{theirs}.output.LayerNorm"),
      )
      for ours, theirs, its_norm in attentions
    ),
    linear(f"{block}mlp/up", f"{layers}intermediate.dense"),
    linear(f"{block}mlp/down", f"{layers}output.dense"),
    norm(f"{block}norm2", f"{layers}output.LayerNorm"),
    linear(rf"^{name}_transforms_(\d+)", f"cross_modal_{name}_transform{number}"),
    norm(f"^{name}_norm", f"cross_modal_{name}_layernorm"),
    linear(f"^{name}_pool/dense", f"cross_modal_{name}_pooler.dense"),
    norm(f"{link}norm", f"{towers}LayerNorm"),
    (Rule(f"{link}scale$", f"{towers}scaled_factor"), Rule(f"{link}share$", f"{towers}beta")),
  )


_HEADS: dict[Head, tuple[Rule, ...]] = {
  "none": (),
  "match": linear("^match_projection", "itm_score.fc"),
  "contrastive": joined(
    linear("^image_projection", "itc_image_head.fc"),
    linear("^text_projection", "itc_text_head.fc"),
    linear("^pair_projection", "itc_cross_modal_head.fc"),
    (Rule("^logit_scale$", "logit_scale"),),
  ),
}


def _rules(head: Head) -> Callable[[Any], tuple[Rule, ...]]:
  prefix = "" if head == "none" else "bridgetower."

  def rules(config: Any) -> tuple[Rule, ...]:
    inner = joined(
      under("image/", "vision_model.visual.", _image(config.image)),
      under("text/", "text_model.", roberta_rules(config.text)),
      *(_stack(name, shared=config.shared_transforms) for name in ("image", "text")),
      (Rule("^type_embedding$", "token_type_embeddings.weight"),),
    )
    return joined((dataclasses.replace(rule, theirs=prefix + rule.theirs) for rule in inner), _HEADS[head])

  return rules


def _read_image(fields: Fields) -> ViTConfig:
  fields.only("num_channels", 3, 3)
  fields.only("share_layernorm", True, True)
  width = fields.integer("hidden_size", 768)
  if width % _HEAD_DIM:
    raise fields.wrong("hidden_size", f"a multiple of {_HEAD_DIM}")
  return ViTConfig(
    width=width,
    depth=fields.integer("num_hidden_layers", 12) - fields.flag("remove_last_layer", False),
    num_heads=width // _HEAD_DIM,
    activation="quick_gelu",
    norm_epsilon=fields.number("layer_norm_eps", 1e-5),
    **sides(fields.square("image_size", 288), fields.square("patch_size", 16)),
    pool="cls",
    input_norm=True,
    class_position=True,
    stem_bias=False,
  )


def _read(head: Head) -> Callable[[Fields, Entries], BridgeTowerConfig]:
  prefix = "" if head == "none" else "bridgetower."

  def read(fields: Fields, entries: Entries) -> BridgeTowerConfig:
    fields.only("share_link_tower_layers", False, False)
    fields.only("init_layernorm_from_vision_encoder", False, False)
    inner = prefix + "text_model."
    own = {name.removeprefix(inner): entry for name, entry in entries.items() if name.startswith(inner)}
    defaults = dict(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
    text = read_roberta(fields.object("text_config").with_defaults(**defaults), own)
    if fields.integer("hidden_size", 768) != text.width:
      raise fields.wrong("hidden_size", f"that of the text_config, {text.width}")
    more: dict[str, Any] = {}
    if head == "contrastive":
      more["embed_dim"] = fields.integer("contrastive_hidden_size", 512)
      more["init_logit_scale"] = math.exp(min(20.0, fields.number("logit_scale_init_value", 2.6592)))
    return BridgeTowerConfig(
      image=_read_image(fields.object("vision_config")),
      text=text,
      cross=TransformerConfig(
        width=text.width,
        depth=fields.integer("num_hidden_layers", 6),
        num_heads=text.num_heads,
        mlp_dim=text.hidden,
        activation=text.activation,
        norm_epsilon=text.norm_epsilon,
        norm="post",
        init_scheme=text.init_scheme,
      ),
      shared_transforms=fields.flag("share_cross_modal_transformer_layers", True),
      link=fields.choice(
        "link_tower_type", {"add": "add", "scaled_add": "scaled_add", "interpolate": "interpolate"}, "add"
      ),
      link_epsilon=fields.number("layer_norm_eps", 1e-5),
      head=head,
      max_logit_scale=math.inf,
      **more,
    )

  return read


def _write(head: Head) -> Callable[[Any], dict[str, Any]]:
  def write(config: Any) -> dict[str, Any]:
    if not isinstance(config, BridgeTowerConfig) or config.head != head:
      raise wrong_kind(_NAMES[head], f'a BridgeTowerConfig with head="{head}"', config)
    image, text = config.image, config.text
    more: dict[str, Any] = {}
    if head == "contrastive":
      more["contrastive_hidden_size"] = config.embed_dim
      more["logit_scale_init_value"] = math.log(config.init_logit_scale)
    return {
      "architectures": [_NAMES[head]],
      "model_type": "bridgetower",
      "hidden_size": text.width,
      "num_hidden_layers": config.cross.depth,
      "num_attention_heads": text.num_heads,
      "layer_norm_eps": config.link_epsilon,
      "link_tower_type": config.link,
      "share_cross_modal_transformer_layers": config.shared_transforms,
      "share_link_tower_layers": False,
      "tie_word_embeddings": False,
      **more,
      "vision_config": {
        "model_type": "bridgetower_vision_model",
        "hidden_size": image.width,
        "num_hidden_layers": image.depth,
        "num_channels": 3,
        "image_size": image.image_size,
        "patch_size": image.patch_size,
        "layer_norm_eps": image.norm_epsilon,
        "share_layernorm": True,
        "remove_last_layer": False,
      },
      "text_config": {
        "model_type": "bridgetower_text_model",
        **write_size(text),
        "vocab_size": text.vocab_size,
        "max_position_embeddings": text.max_length + text.pad_id + 1,
        "type_vocab_size": text.token_types,
        "pad_token_id": text.pad_id,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
      },
    }

  return write


_UNUSED = {
  "hidden_act": "used only by BridgeTowerForMaskedLM",
  "num_attention_heads": "the stack has the heads of the text encoder",
  "stop_gradient": "used only in training",
}
_IGNORED = (r"embeddings\.(position_ids|token_type_ids)$", r"^mlm_score\.", r"^itm_score\.")


def _bridgetower(head: Head) -> Architecture:
  renamed = ((r"^bridgetower\.", ""),) if head == "none" else ()
  ignored = _IGNORED[:2] if head == "match" else _IGNORED
  return Architecture(_NAMES[head], _read(head), _write(head), _rules(head), ignored, renamed, without_effect=_UNUSED)


BRIDGETOWER = _bridgetower("none")
BRIDGETOWER_MATCH = _bridgetower("match")
BRIDGETOWER_CONTRASTIVE = _bridgetower("contrastive")
