"""Mapping of transformers' BEiT (Bao et al. 2022): BeitModel, and Data2VecVisionModel, which has the same network."""

import dataclasses
from typing import Any

from mmjax.encoders import ViTConfig
from mmjax.interop.architecture import ACTIVATIONS, Architecture, Entries, sides, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, norm, patches
from mmjax.interop.transformers_dino import BACKBONE
from mmjax.interop.transformers_parts import write_vision
from mmjax.interop.transformers_single import pre_norm_layers, read_size

_OURS, _THEIRS = r"transformer/block_(\d+)/", r"encoder.layer.\1."
_POSITIONS, _TABLE = "embeddings.position_embeddings", "relative_position_bias.relative_position_bias_table"
_LARGEST = 64  # patches along a side; the numbers of the offsets of two patches have the fourth power of it


def rules(config: ViTConfig) -> tuple[Rule, ...]:
  """Mapping rules of BeitModel."""
  return joined(
    pre_norm_layers(),
    (
      *(Rule(f"{_OURS}scale{n}/scale$", f"{_THEIRS}lambda_{n}") for n in (1, 2)),
      Rule(r"^patch_bias_(\d+)/table$", rf"{_THEIRS}attention.attention.{_TABLE}"),
      Rule("^patch_bias/table$", f"encoder.{_TABLE}"),
      Rule("^class_token$", "embeddings.cls_token", "1 1 d -> 1 d"),
      Rule("^class_position$", _POSITIONS, "1 n d -> n d", part=0, axis=1),
      Rule("^position_embedding$", _POSITIONS, "1 n d -> n d", part=1, axis=1),
    ),
    patches("^stem/projection", "embeddings.patch_embeddings.projection", config.patch_size),
    norm("^transformer/norm", "layernorm"),
    norm("^norm", "pooler.layernorm"),
  )


def read(fields: Fields, entries: Entries) -> ViTConfig:
  """Read the configuration of BeitModel.

  The tensors tell how it pools. BeitForMaskedImageModeling has no pooler: an image's vector is then its class token.
  """
  fields.only("num_channels", 3, 3)
  fields.flag("use_mask_token", False)
  size = sides(fields.square("image_size", 224), fields.square("patch_size", 16))
  if size["image_size"] // size["patch_size"] > _LARGEST:
    raise fields.wrong("image_size", f"at most {_LARGEST} patches of {size['patch_size']} pixels")
  mean = fields.flag("use_mean_pooling", True) and "layernorm.weight" not in entries
  absolute, scale = (
    fields.flag("use_absolute_position_embeddings", False),
    fields.number("layer_scale_init_value", 0.1),
  )
  shared, own = (fields.flag(f"use_{name}relative_position_bias", False) for name in ("shared_", ""))
  if shared and own:
    raise fields.wrong("use_shared_relative_position_bias", "false with use_relative_position_bias: mmjax has only one")
  return ViTConfig(
    **read_size(fields),
    **size,
    activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
    norm_epsilon=fields.number("layer_norm_eps", 1e-12),
    attention_bias="query_value",
    layer_scale=scale if scale > 0 else None,
    patch_bias="shared" if shared else "blocks" if own else "none",
    positions="learned" if absolute else "none",
    class_position=absolute,
    pool="cls_mean" if mean else "cls",
    norm_after_pool=mean,
  )


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single ViT."""
  if not isinstance(config, ViTConfig):
    raise wrong_kind("BeitModel", "a vision transformer alone", config)
  return {
    "architectures": ["BeitModel"],
    "model_type": "beit",
    **write_vision(config),
    "layer_scale_init_value": config.layer_scale or 0.0,
    "use_mask_token": False,
    "use_absolute_position_embeddings": config.class_position,
    "use_relative_position_bias": config.patch_bias == "blocks",
    "use_shared_relative_position_bias": config.patch_bias == "shared",
    "use_mean_pooling": config.pool == "cls_mean",
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "drop_path_rate": 0.0,
  }


_SEGMENTS = "used only to divide an image into segments"
_UNUSED = (
  BACKBONE
  | {"drop_path_rate": "used only in training", "vocab_size": "used only to guess hidden patches"}
  | dict.fromkeys(("pool_scales", "semantic_loss_ignore_index", "add_fpn", "use_auxiliary_head"), _SEGMENTS)
  | dict.fromkeys((f"auxiliary_{n}" for n in ("loss_weight", "channels", "num_convs", "concat_input")), _SEGMENTS)
)
# Of a model with a head for one task, only the encoder is read. The index was a tensor of older versions.
_IGNORED = (r"^classifier\.", r"^lm_head\.", r"embeddings\.mask_token$", r"relative_position_index$")
BEIT = Architecture("BeitModel", read, write, rules, _IGNORED, ((r"^beit\.", ""),), without_effect=_UNUSED)
DATA2VEC = dataclasses.replace(BEIT, name="Data2VecVisionModel", renamed=((r"^data2vec_vision\.", ""),))
