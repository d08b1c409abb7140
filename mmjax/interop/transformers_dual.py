"""Mapping of transformers' VisionTextDualEncoderModel: any image encoder beside any text encoder."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from mmjax.interop.architecture import Architecture, Entries, canonical, differences, wrong_kind
from mmjax.interop.errors import InteropError
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, under
from mmjax.interop.transformers_deit import DEIT
from mmjax.interop.transformers_dino import DINOV2, DINOV2_REGISTERS
from mmjax.interop.transformers_one_tower import CLIP_IMAGE, CLIP_TEXT, SIGLIP_IMAGE
from mmjax.interop.transformers_pairs import PROJECTIONS, paired, write_pair
from mmjax.interop.transformers_single import BERT, VIT
from mmjax.interop.transformers_swin import SWIN
from mmjax.interop.transformers_texts import MPNET, ROBERTA
from mmjax.models import TwoTowerConfig

KIND = "vision-text-dual-encoder"
"""model_type in config.json."""
_NAME, _IMAGE, _TEXT = "VisionTextDualEncoderModel", "vision_model.", "text_model."
_IMAGES: Mapping[str, Architecture] = {
  "clip_vision_model": CLIP_IMAGE,
  "siglip_vision_model": SIGLIP_IMAGE,
  "dinov2": DINOV2,
  "dinov2_with_registers": DINOV2_REGISTERS,
  "deit": DEIT,
  "swin": SWIN,
  "vit": VIT,
}
_TEXTS: Mapping[str, Architecture] = {
  "clip_text_model": CLIP_TEXT,
  "mpnet": MPNET,
  "roberta": ROBERTA,
  "xlm-roberta": ROBERTA,
  "bert": BERT,
}
_POOLER: dict[str, Any] = {"pooler.dense.weight": None}  # the class reads the pooler's vector: there must be one


def dual(fields: Fields) -> Architecture:
  """Make the architecture of a checkpoint. Raises InteropError if mmjax does not read one of the towers."""
  image = fields.object("vision_config").choice("model_type", _IMAGES)
  text = fields.object("text_config").choice("model_type", _TEXTS)

  def read(fields: Fields, entries: Entries) -> TwoTowerConfig:
    images: Any = image.read(fields.object("vision_config"), _inner(entries, _IMAGE) | _POOLER)
    texts: Any = text.read(fields.object("text_config"), _inner(entries, _TEXT) | _POOLER)
    return paired(fields, images, texts, fields.integer("projection_dim", 512))

  return dataclasses.replace(
    DUAL,
    read=read,
    rules=lambda config: _rules(config, image, text),
    ignored=(*_below(_IMAGE, image.ignored), *_below(_TEXT, text.ignored)),
    renamed=(*_renamed(_IMAGE, image), *_renamed(_TEXT, text)),
    without_effect={**image.without_effect, **text.without_effect},
    blank=lambda config: _blank(config, image, text),
    resampling=image.resampling,
  )


def _inner(entries: Entries, prefix: str) -> dict[str, Any]:
  return {name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)}


def _below(prefix: str, patterns: tuple[str, ...]) -> tuple[str, ...]:
  """Regular expressions of a tower's names, for names with a prefix."""
  return tuple(re.sub(r"^\^", "^" + prefix.replace(".", r"\\."), pattern) for pattern in patterns)


def _renamed(prefix: str, tower: Architecture) -> tuple[tuple[str, str], ...]:
  patterns = _below(prefix, tuple(pattern for pattern, _ in tower.renamed))
  news = (prefix + new if old.startswith("^") else new for old, new in tower.renamed)
  return tuple(zip(patterns, news, strict=True))


def _rules(config: TwoTowerConfig, image: Architecture, text: Architecture) -> tuple[Rule, ...]:
  return joined(
    under("image/", _IMAGE, image.rules(config.image)), under("text/", _TEXT, text.rules(config.text)), PROJECTIONS
  )


def _blank(config: TwoTowerConfig, image: Architecture, text: Architecture) -> dict[str, tuple[int, ...]]:
  images = {_IMAGE + name: shape for name, shape in image.blank(config.image).items()}
  return images | {_TEXT + name: shape for name, shape in text.blank(config.text).items()}


def _held(config: Any) -> tuple[Architecture, Architecture]:
  """Architectures that hold the towers of a model. Raises InteropError if there are none."""
  if not isinstance(config, TwoTowerConfig):
    raise wrong_kind(_NAME, "an image encoder beside a text encoder", config)
  return _holding(config.image, _IMAGES, "image"), _holding(config.text, _TEXTS, "text")


def _holding(tower: Any, known: Mapping[str, Architecture], name: str) -> Architecture:
  for architecture in known.values():
    try:
      back = architecture.read(Fields(architecture.write(tower), _NAME), _POOLER)
    except (InteropError, ValueError):  # another kind of tower
      continue
    if not list(differences(canonical(tower), canonical(back), name)):
      return architecture
  names = ", ".join(dict.fromkeys(architecture.name for architecture in known.values()))
  raise InteropError(
    f"{_NAME} cannot hold the {name} tower of this model; it has those of {names}, with a pooler where they have one. "
    'Use format="mmjax" (--to mmjax), which holds every model'
  )


def _write(config: Any) -> dict[str, Any]:
  image, text = _held(config)
  return write_pair(config, _NAME, KIND, image.write(config.image), text.write(config.text))


DUAL = Architecture(
  _NAME,
  lambda fields, entries: dual(fields).read(fields, entries),
  _write,
  lambda config: _rules(config, *_held(config)),
  blank=lambda config: _blank(config, *_held(config)),
)
