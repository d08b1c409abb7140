"""Mapping of transformers' ClapModel (Wu et al. 2023): an HTS-AT for sounds beside RoBERTa."""

import dataclasses
import math
import re
from typing import Any

from mmjax.encoders import HtsatConfig
from mmjax.interop import transformers_swin as swin
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, batch_norm, joined, linear, under
from mmjax.interop.transformers_texts import read_roberta, roberta_rules, write_roberta
from mmjax.models import ClapConfig

_AUDIO = "audio_model.audio_encoder."
_NAMES = (  # of Swin's tensors in CLAP
  (r"^encoder\.layers\.", "layers."),
  (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
  (r"^embeddings\.norm", "patch_embed.norm"),
  (r"^layernorm\.", "norm."),
)
_SWIN = {"depths": "depths", "window_size": "window_size", "num_heads": "num_attention_heads"}  # ours, theirs
_LARGEST = 2**15  # frames that fill the square; the weights that stretch a clip to them lie in memory
_POOLER: Any = {"pooler.dense.weight": None}
_TEXT: dict[str, Any] = dict(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)


def rules(config: ClapConfig) -> tuple[Rule, ...]:
  """Mapping rules of ClapModel."""
  audio: Any = config.audio
  return joined(
    under("audio/", _AUDIO, (_renamed(rule) for rule in swin.rules(audio.swin))),
    batch_norm("^audio/input_norm", f"{_AUDIO}batch_norm"),
    under("text/", "text_model.", roberta_rules(config.text)),
    *(
      linear(f"^{side}_projection/{ours}", f"{side}_projection.{theirs}")
      for side in ("audio", "text")
      for ours, theirs in (("up", "linear1"), ("down", "linear2"))
    ),
    (Rule("^logit_scale$", "logit_scale_a"), Rule("^text_logit_scale$", "logit_scale_t")),
  )


def _renamed(rule: Rule) -> Rule:
  name = rule.theirs
  for theirs, here in _NAMES:
    name = re.sub(theirs, here, name)
  return dataclasses.replace(rule, theirs=name)


def read(fields: Fields, entries: Entries) -> ClapConfig:
  """Read the configuration of ClapModel. The tensors are not needed."""
  del entries
  audio, text = fields.object("audio_config"), fields.object("text_config")
  if audio.flag("enable_fusion", False):
    raise InteropError(
      f"{audio.where}: enable_fusion is true: this ClapModel reads four spectrograms of a long clip, which mmjax has "
      "no model for. Models without fusion (laion/clap-htsat-unfused) are read"
    )
  dim = fields.integer("projection_dim", 512)
  for part in (audio, text, fields):
    part.only("projection_dim", dim, dim)
    part.only("projection_hidden_act", "relu", "relu")
  return ClapConfig(
    audio=_read_audio(audio),
    text=read_roberta(text.with_defaults(**_TEXT), _POOLER),
    embed_dim=dim,
    init_logit_scale=fields.number("logit_scale_init_value", 1 / 0.07),
    max_logit_scale=math.inf,
  )


def _read_audio(fields: Fields) -> HtsatConfig:
  patch = fields.square("patch_size", 4)
  for name, supported in (
    ("enable_patch_layer_norm", True),
    ("flatten_patch_embeds", True),
    ("patch_embed_input_channels", 1),
  ):
    fields.only(name, supported, supported)
  if fields.get("patch_stride", [4, 4]) not in (patch, [patch, patch]):
    raise fields.wrong("patch_stride", f"patch_size, {patch}: mmjax has no overlapping patches here")
  side, bands = fields.square("spec_size", 256), fields.integer("num_mel_bins", 64)
  if side * side // bands > _LARGEST:
    raise fields.wrong("spec_size", f"small enough for {_LARGEST} frames of {bands} bands")
  names = {name: fields.get(theirs, _DEFAULTS[name]) for name, theirs in _SWIN.items()}
  tower = swin.read(
    Fields(
      names
      | {"image_size": side, "patch_size": patch}
      | {"embed_dim": fields.integer("patch_embeds_hidden_size", 96)}
      | {name: fields.get(name, default) for name, default in _SAME.items()},
      fields.where,
    ),
    {},
  )
  fields.only("num_hidden_layers", len(tower.layers), len(tower.layers))
  fields.only("hidden_size", tower.pooled_width, 768)
  return HtsatConfig(bands, tower, norm="frozen")


_DEFAULTS: dict[str, Any] = {"depths": [2, 2, 6, 2], "window_size": 8, "num_heads": [4, 8, 16, 32]}
_SAME: dict[str, Any] = {"mlp_ratio": 4.0, "hidden_act": "gelu", "qkv_bias": True, "layer_norm_eps": 1e-5}


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a ClapConfig with an HTS-AT."""
  audio = getattr(config, "audio", None)
  if not isinstance(config, ClapConfig) or not isinstance(audio, HtsatConfig):
    raise wrong_kind("ClapModel", "a ClapConfig with an HtsatConfig", config)
  tower, shared = swin.write(audio.swin), {"projection_dim": config.embed_dim, "projection_hidden_act": "relu"}
  return {
    "architectures": ["ClapModel"],
    "model_type": "clap",
    "projection_dim": config.embed_dim,
    "logit_scale_init_value": config.init_logit_scale,
    "audio_config": {
      "model_type": "clap_audio_model",
      **{theirs: tower[name] for name, theirs in _SWIN.items()},
      **{name: tower[name] for name in _SAME},
      "spec_size": tower["image_size"],
      "patch_size": tower["patch_size"],
      "patch_stride": [tower["patch_size"]] * 2,
      "patch_embeds_hidden_size": tower["embed_dim"],
      "num_hidden_layers": len(tower["depths"]),
      "hidden_size": audio.pooled_width,
      "num_mel_bins": audio.bands,
      "patch_embed_input_channels": 1,
      "enable_patch_layer_norm": True,
      "enable_fusion": False,
      **shared,
    },
    "text_config": write_roberta(config.text) | {"model_type": "clap_text_model", "architectures": None} | shared,
  }


_UNUSED = dict.fromkeys(("aff_block_r", "fusion_type", "fusion_num_hidden_layers"), "used only with enable_fusion") | {
  "drop_path_rate": "used only in training",
  "num_classes": "used only by a head for one task",
  "hidden_size": "the parts have their own",
  "num_hidden_layers": "the parts have their own",
}
_IGNORED = (r"embeddings\.(position|token_type)_ids$", r"relative_position_index$", r"\.num_batches_tracked$")
CLAP = Architecture("ClapModel", read, write, rules, _IGNORED, without_effect=_UNUSED)
