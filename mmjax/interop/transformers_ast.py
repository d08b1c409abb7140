"""Mapping of transformers' audio spectrogram transformer (Gong et al. 2021): ASTModel, and its classifier."""

import dataclasses
from typing import Any

from mmjax.encoders import AstConfig
from mmjax.interop.architecture import ACTIVATIONS, Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, norm, patches, under
from mmjax.interop.transformers_classifiers import named, with_head
from mmjax.interop.transformers_parts import write_size
from mmjax.interop.transformers_single import pre_norm_layers, read_size
from mmjax.models import ClassifierConfig

KIND = "audio-spectrogram-transformer"
HEAD = r"^classifier\.dense\.weight$"
"""The tensor that tells the classifier from the encoder."""
_PREFIX = "audio_spectrogram_transformer."
_POSITIONS = "embeddings.position_embeddings"


def read(fields: Fields, entries: Entries) -> AstConfig:
  """Read the configuration of ASTModel. The tensors are not needed."""
  del entries
  fields.only("qkv_bias", True, True)
  return AstConfig(
    **read_size(fields),
    activation=fields.choice("hidden_act", ACTIVATIONS, "gelu"),
    norm_epsilon=fields.number("layer_norm_eps", 1e-12),
    frames=fields.integer("max_length", 1024),
    bands=fields.integer("num_mel_bins", 128),
    patch_size=fields.square("patch_size", 16),
    time_stride=fields.integer("time_stride", 10),
    band_stride=fields.integer("frequency_stride", 10),
  )


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single audio spectrogram transformer."""
  if not isinstance(config, AstConfig):
    raise wrong_kind("ASTModel", "an audio spectrogram transformer alone", config)
  return {
    "architectures": ["ASTModel"],
    "model_type": KIND,
    **write_size(config),
    "max_length": config.frames,
    "num_mel_bins": config.bands,
    "patch_size": config.patch_size,
    "time_stride": config.time_stride,
    "frequency_stride": config.band_stride,
    "qkv_bias": True,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
  }


def rules(config: AstConfig) -> tuple[Rule, ...]:
  """Mapping rules. One tensor holds the positions of the two first tokens and of the patches."""
  return joined(
    pre_norm_layers(),
    patches("^projection", "embeddings.patch_embeddings.projection", config.patch_size, "o c p q -> p q c o"),
    norm("^transformer/norm", "layernorm"),
    (
      Rule("^class_token$", "embeddings.cls_token", "1 n d -> n d"),
      Rule("^register_tokens$", "embeddings.distillation_token", "1 n d -> n d"),
      Rule("^class_position$", _POSITIONS, "1 n d -> n d", part=0, axis=1),
      Rule("^position_embedding$", _POSITIONS, "1 n d -> n d", part=1, axis=1),
    ),
  )


def read_classes(fields: Fields, entries: Entries) -> ClassifierConfig:
  """Read the configuration of ASTForAudioClassification."""
  tower = dataclasses.replace(read(fields, entries), norm_after_pool=True)
  return with_head({"audio": tower}, "classifier.dense.weight", fields, entries)


def write_classes(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a classifier of sounds."""
  if not isinstance(config, ClassifierConfig) or list(config.towers) != ["audio"]:
    raise wrong_kind("ASTForAudioClassification", "a classifier of sounds", config)
  return write(config.towers["audio"]) | {"architectures": ["ASTForAudioClassification"]} | named(config)


def class_rules(config: Any) -> tuple[Rule, ...]:
  """Mapping rules of the classifier. Its head begins with the norm that follows the pooling."""
  return joined(
    under("audio/", _PREFIX, rules(config.towers["audio"])),
    norm("^audio/norm", "classifier.layernorm"),
    linear("^class_projection", "classifier.dense"),
  )


AST = Architecture("ASTModel", read, write, rules)
AST_CLASSES = Architecture("ASTForAudioClassification", read_classes, write_classes, class_rules)
