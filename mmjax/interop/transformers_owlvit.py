"""Mapping of the towers of transformers' OWL-ViT (OwlViTModel, Owlv2Model): those of CLIP, with other defaults."""

import dataclasses
from typing import Any

from mmjax.encoders import TextConfig, ViTConfig
from mmjax.interop.architecture import Architecture, Entries
from mmjax.interop.fields import Fields
from mmjax.interop.transformers_one_tower import CLIP_IMAGE, CLIP_TEXT
from mmjax.interop.transformers_parts import read_clip_image, read_clip_text


def _image(name: str, patch_size: int) -> Architecture:
  def read(fields: Fields, entries: Entries) -> ViTConfig:
    del entries
    return read_clip_image(fields.with_defaults(image_size=768, patch_size=patch_size))

  # CLIP's name of this norm has a mistake, which OWL-ViT's has not.
  renamed: Any = ((r"^vision_model\.pre_layernorm\.", "vision_model.pre_layrnorm."), *CLIP_IMAGE.renamed)
  return dataclasses.replace(CLIP_IMAGE, name=name, read=read, renamed=renamed)


def _text(name: str) -> Architecture:
  def read(fields: Fields, entries: Entries) -> TextConfig:
    del entries
    fields = fields.with_defaults(max_position_embeddings=16, pad_token_id=0)
    return dataclasses.replace(read_clip_text(fields), pool="argmax")  # whatever the id of the end token is

  return dataclasses.replace(CLIP_TEXT, name=name, read=read)


OWLVIT_IMAGE, OWLV2_IMAGE = _image("OwlViTVisionModel", 32), _image("Owlv2VisionModel", 16)
OWLVIT_TEXT, OWLV2_TEXT = _text("OwlViTTextModel"), _text("Owlv2TextModel")
