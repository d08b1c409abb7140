"""Pictures and captions: sources, transforms, tokenizers, and the loader."""

from mmjax.data.config import AugmentationConfig, DataConfig, TokenizerConfig
from mmjax.data.errors import DataError
from mmjax.data.loader import Loader, make_loader
from mmjax.data.sources import Record, Source, make_source
from mmjax.data.tokenizer import Tokenizer
from mmjax.data.transforms import eval_transform
from mmjax.data.vocabulary import make_tokenizer

__all__ = [
  "AugmentationConfig",
  "DataConfig",
  "DataError",
  "Loader",
  "Record",
  "Source",
  "Tokenizer",
  "TokenizerConfig",
  "eval_transform",
  "make_loader",
  "make_source",
  "make_tokenizer",
]
