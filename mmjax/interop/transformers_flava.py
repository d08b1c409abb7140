"""Mapping of the towers of transformers' FlavaModel: FlavaImageModel, a ViT, and FlavaTextModel, BERT with pre-norm."""

import dataclasses
from typing import Any

from mmjax.encoders import TextConfig
from mmjax.interop.architecture import Architecture, Entries
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, norm
from mmjax.interop.transformers_single import VIT, bert_rules, pre_norm_layers, read_bert, write_bert

FLAVA_IMAGE = dataclasses.replace(
  VIT,
  name="FlavaImageModel",
  without_effect=dict.fromkeys(("mask_token", "vocab_size"), "used only to hide patches and to guess them"),
)


def _rules(config: TextConfig) -> tuple[Rule, ...]:
  return joined(pre_norm_layers(), norm("^transformer/norm", "layernorm"), bert_rules(config))


def _read(fields: Fields, entries: Entries) -> TextConfig:
  fields.only("qkv_bias", True, True)
  return dataclasses.replace(read_bert(fields, entries), norm="pre")


def _write(config: Any) -> dict[str, Any]:
  return write_bert(config) | {"architectures": ["FlavaTextModel"], "model_type": "flava_text_model"}


FLAVA_TEXT = Architecture("FlavaTextModel", _read, _write, _rules, VIT.ignored)
