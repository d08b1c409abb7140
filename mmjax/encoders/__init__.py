"""Encoders: each maps one modality to an `Encoded`."""

from mmjax.encoders.ast import Ast, AstConfig
from mmjax.encoders.bert import bert_config
from mmjax.encoders.classic_resnet import ClassicResNet, ClassicResNetConfig
from mmjax.encoders.config import TowerConfig
from mmjax.encoders.conv_grid import ConvGrid, ConvGridConfig
from mmjax.encoders.convnext import ConvNeXt, ConvNeXtConfig
from mmjax.encoders.efficientnet import EfficientNet, EfficientNetConfig
from mmjax.encoders.embedding_bag import EmbeddingBagConfig
from mmjax.encoders.fastvit import FastViT, FastViTConfig
from mmjax.encoders.htsat import Htsat, HtsatConfig
from mmjax.encoders.modern_text import ModernText, ModernTextConfig
from mmjax.encoders.naflex import NaFlexConfig, NaFlexViT
from mmjax.encoders.resnet import ResNet, ResNetConfig
from mmjax.encoders.sizes import vit_size
from mmjax.encoders.speech import SpeechConfig, SpeechTransformer
from mmjax.encoders.swin import Swin, SwinConfig
from mmjax.encoders.table import FTTransformerConfig
from mmjax.encoders.text import TextConfig, TextTransformer
from mmjax.encoders.video import VideoConfig
from mmjax.encoders.vit import ViT, ViTConfig

__all__ = [
  "Ast",
  "AstConfig",
  "ClassicResNet",
  "ClassicResNetConfig",
  "ConvGrid",
  "ConvGridConfig",
  "ConvNeXt",
  "ConvNeXtConfig",
  "EfficientNet",
  "EfficientNetConfig",
  "EmbeddingBagConfig",
  "FTTransformerConfig",
  "FastViT",
  "FastViTConfig",
  "Htsat",
  "HtsatConfig",
  "ModernText",
  "ModernTextConfig",
  "NaFlexConfig",
  "NaFlexViT",
  "ResNet",
  "ResNetConfig",
  "SpeechConfig",
  "SpeechTransformer",
  "Swin",
  "SwinConfig",
  "TextConfig",
  "TextTransformer",
  "TowerConfig",
  "ViT",
  "ViTConfig",
  "VideoConfig",
  "bert_config",
  "vit_size",
]
