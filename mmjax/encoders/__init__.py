"""Encoders: each maps one modality to an `Encoded`."""

from mmjax.encoders.bert import bert_config
from mmjax.encoders.config import TowerConfig
from mmjax.encoders.convnext import ConvNeXt, ConvNeXtConfig
from mmjax.encoders.efficientnet import EfficientNet, EfficientNetConfig
from mmjax.encoders.fastvit import FastViT, FastViTConfig
from mmjax.encoders.resnet import ResNet, ResNetConfig
from mmjax.encoders.sizes import vit_size
from mmjax.encoders.swin import Swin, SwinConfig
from mmjax.encoders.table import FTTransformer, FTTransformerConfig
from mmjax.encoders.text import TextConfig, TextTransformer
from mmjax.encoders.vit import ViT, ViTConfig

__all__ = [
  "ConvNeXt",
  "ConvNeXtConfig",
  "EfficientNet",
  "EfficientNetConfig",
  "FTTransformer",
  "FTTransformerConfig",
  "FastViT",
  "FastViTConfig",
  "ResNet",
  "ResNetConfig",
  "Swin",
  "SwinConfig",
  "TextConfig",
  "TextTransformer",
  "TowerConfig",
  "ViT",
  "ViTConfig",
  "bert_config",
  "vit_size",
]
