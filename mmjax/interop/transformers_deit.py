"""Mapping of transformers' DeiT (Touvron et al. 2021): ViTModel with a distillation token, which is a register here."""

import dataclasses
from typing import Any

from mmjax.encoders import ViTConfig
from mmjax.interop.architecture import Architecture, Entries
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined
from mmjax.interop.transformers_single import VIT

_POSITIONS = "embeddings.position_embeddings"


def read(fields: Fields, entries: Entries) -> ViTConfig:
  """Read the configuration. The tensors tell if it has a pooler."""
  vit: Any = VIT.read(fields, entries)
  return dataclasses.replace(vit, registers=1, register_position=True)


def write(config: Any) -> dict[str, Any]:
  """Write config.json. Raises InteropError if the model is not a single ViT."""
  return VIT.write(config) | {"architectures": ["DeiTModel"], "model_type": "deit"}


def rules(config: ViTConfig) -> tuple[Rule, ...]:
  """Mapping rules. One tensor holds the positions of the class token, of the distillation token and of the patches."""
  return joined(
    (
      Rule("^register_tokens$", "embeddings.distillation_token", "1 n d -> n d"),
      Rule("^class_position$", _POSITIONS, "1 n d -> n d", part=0, axis=1),
      Rule("^register_position$", _POSITIONS, "1 n d -> n d", part=1, axis=1),
      Rule("^position_embedding$", _POSITIONS, "1 n d -> n d", part=2, axis=1),
    ),
    VIT.rules(config),
  )


# The two classifiers of DeiTForImageClassificationWithTeacher. Of such a model, the encoder is read.
_HEADS = (r"^(cls|distillation)_classifier\.",)
DEIT = Architecture("DeiTModel", read, write, rules, (*VIT.ignored, *_HEADS), ((r"^deit\.", ""),))
