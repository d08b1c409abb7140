"""One modality in, `Encoded` out."""

from mmjax.encoders.sizes import vit_size
from mmjax.encoders.text import TextConfig, TextTransformer
from mmjax.encoders.vit import ViT, ViTConfig

__all__ = ["TextConfig", "TextTransformer", "ViT", "ViTConfig", "vit_size"]
