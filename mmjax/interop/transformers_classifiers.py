"""Mapping of transformers' image classifiers: an image tower with a linear layer, and the names of the classes."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from mmjax.encoders import ViTConfig
from mmjax.encoders.config import TowerConfig
from mmjax.interop.architecture import Architecture, Entries, wrong_kind
from mmjax.interop.fields import Fields
from mmjax.interop.mapping import Rule, joined, linear, under
from mmjax.interop.transformers_beit import BEIT, DATA2VEC
from mmjax.interop.transformers_convnext import CONVNEXT, CONVNEXT_V2
from mmjax.interop.transformers_deit import DEIT
from mmjax.interop.transformers_dino import DINOV2, DINOV2_REGISTERS
from mmjax.interop.transformers_one_tower import SIGLIP2_IMAGE, SIGLIP_IMAGE
from mmjax.interop.transformers_parts import read_siglip2_image, read_siglip_image
from mmjax.interop.transformers_resnet import RESNET
from mmjax.interop.transformers_single import VIT, VIT_MSN
from mmjax.interop.transformers_swin import SWIN
from mmjax.models import ClassifierConfig

HEAD, HEAD_1 = r"^classifier\.weight$", r"^classifier\.1\.weight$"
"""The tensor that tells a classifier from its encoder, and that of ResNet."""


def classifier(
  encoder: Architecture,
  name: str,
  prefix: str,
  pool: Literal["cls", "mean", "cls_and_mean"] | None = "cls",
  renamed: tuple[tuple[str, str], ...] = (),
  head: str = "classifier",
) -> Architecture:
  """Make the architecture of an image classifier.

  Args:
    encoder: its image tower.
    name: the class.
    prefix: prefix of the tower's tensors.
    pool: pooling of the tower's tokens, which the linear layer reads. None: the tower has only one.
    renamed: as in `Architecture`.
    head: name of the linear layer.
  """

  def read(fields: Fields, entries: Entries) -> ClassifierConfig:
    inner = {n.removeprefix(prefix): entry for n, entry in entries.items() if n.startswith(prefix)}
    return with_head({"image": _pooled(encoder.read(fields, inner), pool)}, f"{head}.weight", fields, entries)

  def write(config: Any) -> dict[str, Any]:
    fields = encoder.write(_tower(config, name))
    return fields | {"architectures": [name]} | named(config)

  def rules(config: Any) -> tuple[Rule, ...]:
    return joined(under("image/", prefix, encoder.rules(config.towers["image"])), linear("^class_projection", head))

  return Architecture(
    name,
    read,
    write,
    rules,
    tuple(pattern.replace("^", "^" + prefix.replace(".", r"\."), 1) for pattern in encoder.ignored),
    renamed,
    without_effect=encoder.without_effect,
    blank=lambda config: {prefix + n: shape for n, shape in encoder.blank(config.towers["image"]).items()},
    resampling=encoder.resampling,
  )


_ReadImage = Callable[[Fields], ViTConfig]
_HEAD_RULES = linear("^class_projection", "classifier")


def _siglip(encoder: Architecture, name: str, model_type: str, read_image: _ReadImage) -> Architecture:
  """Classifier of SigLIP: the mean over the patches. The attention pooling is in its files, and no result reads it."""

  def read(fields: Fields, entries: Entries) -> ClassifierConfig:
    fields.get("text_config")  # such a file has no text tower
    vision = fields.object("vision_config")
    vision.flag("vision_use_head", True)
    return with_head({"image": _pooled(read_image(vision), "mean")}, "classifier.weight", fields, entries)

  def write(config: Any) -> dict[str, Any]:
    vision = encoder.write(_tower(config, name)) | {"vision_use_head": False}
    del vision["architectures"]
    return {"architectures": [name], "model_type": model_type, "vision_config": vision} | named(config)

  def rules(config: Any) -> tuple[Rule, ...]:
    return joined(under("image/", "", encoder.rules(config.towers["image"])), _HEAD_RULES)

  ignored = (*encoder.ignored, r"^vision_model\.head\.")
  return Architecture(name, read, write, rules, ignored, resampling=encoder.resampling)


def _pooled(tower: Any, pool: str | None) -> Any:
  return tower if pool is None else dataclasses.replace(tower, pool=pool)


def with_head(towers: Mapping[str, Any], head: str, fields: Fields, entries: Entries) -> ClassifierConfig:
  """A classifier with the linear layer of a file, and the names of its classes.

  Args:
    towers: the towers by name.
    head: name of the weights of the linear layer.
    fields: config.json.
    entries: the tensors.
  """
  count = entries[head].shape[0]
  names = fields.get("id2label") or {}
  fields.get("label2id")  # the same names
  if not isinstance(names, dict) or (names and set(names) != {str(n) for n in range(count)}):
    raise fields.wrong("id2label", f"an object with the names of the {count} classes that {head} has")
  classes = tuple(str(names[str(n)]) for n in range(count)) if names else ()
  return ClassifierConfig(towers=towers, num_classes=count, classes=classes)


def _tower(config: Any, name: str) -> TowerConfig:
  """The image tower of a classifier of images. The encoder's `write` checks its kind."""
  if not isinstance(config, ClassifierConfig) or list(config.towers) != ["image"]:
    raise wrong_kind(name, "a classifier of images", config)
  return config.towers["image"]


def named(config: ClassifierConfig) -> dict[str, Any]:
  """Names of the classes, as transformers writes them."""
  names = config.classes or [f"LABEL_{n}" for n in range(config.num_classes)]
  ids = {str(n): name for n, name in enumerate(names)}
  return {"id2label": ids, "label2id": {name: int(n) for n, name in ids.items()}}


VIT_CLASSES = classifier(VIT, "ViTForImageClassification", "vit.")
# transformers 5 writes the prefix of some of its tensors only.
MSN_CLASSES = classifier(VIT_MSN, "ViTMSNForImageClassification", "vit.", renamed=((r"^encoder\.", "vit.encoder."),))
BEIT_CLASSES = classifier(BEIT, "BeitForImageClassification", "beit.", None)
DATA2VEC_CLASSES = classifier(DATA2VEC, "Data2VecVisionForImageClassification", "data2vec_vision.", None)
DEIT_CLASSES = classifier(DEIT, "DeiTForImageClassification", "deit.")
DINOV2_CLASSES = classifier(DINOV2, "Dinov2ForImageClassification", "dinov2.", "cls_and_mean")
REGISTERS_CLASSES = classifier(
  DINOV2_REGISTERS, "Dinov2WithRegistersForImageClassification", "dinov2_with_registers.", "cls_and_mean"
)
SWIN_CLASSES = classifier(SWIN, "SwinForImageClassification", "swin.", None)
CONVNEXT_CLASSES = classifier(CONVNEXT, "ConvNextForImageClassification", "convnext.", None)
CONVNEXT_V2_CLASSES = classifier(CONVNEXT_V2, "ConvNextV2ForImageClassification", "convnextv2.", None)
RESNET_CLASSES = classifier(RESNET, "ResNetForImageClassification", "resnet.", None, head="classifier.1")
SIGLIP_CLASSES = _siglip(
  SIGLIP_IMAGE,
  "SiglipForImageClassification",
  "siglip",
  lambda vision: read_siglip_image(vision, vision.square("image_size", 224)),
)
SIGLIP2_CLASSES = _siglip(SIGLIP2_IMAGE, "Siglip2ForImageClassification", "siglip2", read_siglip2_image)
