"""Pictures and captions: sources, transforms, tokenizers, and the loader."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.data.config import AugmentationConfig, DataConfig, TokenizerConfig
  from mmjax.data.errors import DataError
  from mmjax.data.evaluation import evaluation_batches
  from mmjax.data.feed import Feed, device_prefetch
  from mmjax.data.loader import Loader, make_loader
  from mmjax.data.opening import make_source
  from mmjax.data.recaption import write_captions
  from mmjax.data.records import Record, Records
  from mmjax.data.sources import (
    Coco,
    EasyVqa,
    Emoji,
    Flickr30k,
    Folder,
    Reading,
    Scenes,
    Shards,
    Source,
    Texts,
    Tfds,
    Vqav2,
  )
  from mmjax.data.tokenizer import Tokenizer
  from mmjax.data.transforms import eval_transform
  from mmjax.data.vocabulary import make_tokenizer
else:
  __getattr__, __dir__ = lazy_names(
    __name__,
    {
      "config": ["AugmentationConfig", "DataConfig", "TokenizerConfig"],
      "errors": ["DataError"],
      "evaluation": ["evaluation_batches"],
      "feed": ["Feed", "device_prefetch"],
      "loader": ["Loader", "make_loader"],
      "opening": ["make_source"],
      "recaption": ["write_captions"],
      "records": ["Record", "Records"],
      "sources": [
        "Coco",
        "EasyVqa",
        "Emoji",
        "Flickr30k",
        "Folder",
        "Reading",
        "Scenes",
        "Shards",
        "Source",
        "Texts",
        "Tfds",
        "Vqav2",
      ],
      "tokenizer": ["Tokenizer"],
      "transforms": ["eval_transform"],
      "vocabulary": ["make_tokenizer"],
    },
  )

__all__ = [
  "AugmentationConfig",
  "Coco",
  "DataConfig",
  "DataError",
  "EasyVqa",
  "Emoji",
  "Feed",
  "Flickr30k",
  "Folder",
  "Loader",
  "Reading",
  "Record",
  "Records",
  "Scenes",
  "Shards",
  "Source",
  "Texts",
  "Tfds",
  "Tokenizer",
  "TokenizerConfig",
  "Vqav2",
  "device_prefetch",
  "eval_transform",
  "evaluation_batches",
  "make_loader",
  "make_source",
  "make_tokenizer",
  "write_captions",
]
