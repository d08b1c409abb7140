"""Images and captions: sources, transforms, tokenizers, and the loader."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.data.columns.answer import Answer, Weight
  from mmjax.data.columns.base import Column
  from mmjax.data.columns.class_label import ClassLabel
  from mmjax.data.columns.codes import PatchCodes
  from mmjax.data.columns.ids import Ids
  from mmjax.data.columns.image import Image
  from mmjax.data.columns.interleaved import Dialogue, Interleaved
  from mmjax.data.columns.label import Label
  from mmjax.data.columns.native_image import NativeImage
  from mmjax.data.columns.sound import Sound
  from mmjax.data.columns.table import Number, Present, Table
  from mmjax.data.columns.text import Caption, Question, SentencePair, Text
  from mmjax.data.columns.video import Video
  from mmjax.data.config import DataConfig, Stream
  from mmjax.data.digits_words import DigitsWords
  from mmjax.data.errors import DataError
  from mmjax.data.evaluation import evaluation_batches
  from mmjax.data.feed import Feed, device_prefetch
  from mmjax.data.images.config import AugmentationConfig
  from mmjax.data.loader import Loader, make_loader
  from mmjax.data.opening import make_source
  from mmjax.data.recaption import write_captions
  from mmjax.data.records import Record, Records, captions_concept, concept_number
  from mmjax.data.scenes import COLOURS
  from mmjax.data.sound.augment import SoundAugmentation
  from mmjax.data.sound.features import Fbank, LogMel, Mfcc, WhisperMel
  from mmjax.data.sources import (
    ClassFolders,
    Coco,
    Documents,
    EasyVqa,
    Emoji,
    Flickr30k,
    Folder,
    Instruments,
    InteractionFile,
    InteractionSource,
    MovieLens,
    Reading,
    Scenes,
    Shards,
    Source,
    SpokenDigits,
    TableFile,
    Texts,
    Tfds,
    Vqav2,
    Weighted,
  )
  from mmjax.data.text.config import TokenizerConfig
  from mmjax.data.text.tokenizer import Tokenizer
  from mmjax.data.transforms import eval_transform
  from mmjax.data.vocabulary import make_tokenizer
else:
  __getattr__, __dir__ = lazy_names(
    __name__,
    {
      "columns.answer": ["Answer", "Weight"],
      "columns.base": ["Column"],
      "columns.codes": ["PatchCodes"],
      "columns.label": ["Label"],
      "columns.class_label": ["ClassLabel"],
      "columns.ids": ["Ids"],
      "columns.image": ["Image"],
      "columns.native_image": ["NativeImage"],
      "columns.interleaved": ["Dialogue", "Interleaved"],
      "columns.sound": ["Sound"],
      "columns.table": ["Number", "Present", "Table"],
      "columns.text": ["Caption", "Question", "SentencePair", "Text"],
      "columns.video": ["Video"],
      "config": ["DataConfig", "Stream"],
      "images.config": ["AugmentationConfig"],
      "text.config": ["TokenizerConfig"],
      "digits_words": ["DigitsWords"],
      "errors": ["DataError"],
      "evaluation": ["evaluation_batches"],
      "feed": ["Feed", "device_prefetch"],
      "loader": ["Loader", "make_loader"],
      "opening": ["make_source"],
      "recaption": ["write_captions"],
      "records": ["Record", "Records", "captions_concept", "concept_number"],
      "scenes": ["COLOURS"],
      "sound.augment": ["SoundAugmentation"],
      "sound.features": ["Fbank", "LogMel", "Mfcc", "WhisperMel"],
      "sources": [
        "ClassFolders",
        "Coco",
        "Documents",
        "EasyVqa",
        "Emoji",
        "Flickr30k",
        "Folder",
        "InteractionFile",
        "InteractionSource",
        "MovieLens",
        "Instruments",
        "Reading",
        "Scenes",
        "Shards",
        "Source",
        "SpokenDigits",
        "TableFile",
        "Texts",
        "Tfds",
        "Vqav2",
        "Weighted",
      ],
      "text.tokenizer": ["Tokenizer"],
      "transforms": ["eval_transform"],
      "vocabulary": ["make_tokenizer"],
    },
  )

__all__ = [
  "COLOURS",
  "Answer",
  "AugmentationConfig",
  "Caption",
  "ClassFolders",
  "ClassLabel",
  "Coco",
  "Column",
  "DataConfig",
  "DataError",
  "Dialogue",
  "DigitsWords",
  "Documents",
  "EasyVqa",
  "Emoji",
  "Fbank",
  "Feed",
  "Flickr30k",
  "Folder",
  "Ids",
  "Image",
  "Instruments",
  "InteractionFile",
  "InteractionSource",
  "Interleaved",
  "Label",
  "Loader",
  "LogMel",
  "Mfcc",
  "MovieLens",
  "NativeImage",
  "Number",
  "PatchCodes",
  "Present",
  "Question",
  "Reading",
  "Record",
  "Records",
  "Scenes",
  "SentencePair",
  "Shards",
  "Sound",
  "SoundAugmentation",
  "Source",
  "SpokenDigits",
  "Stream",
  "Table",
  "TableFile",
  "Text",
  "Texts",
  "Tfds",
  "Tokenizer",
  "TokenizerConfig",
  "Video",
  "Vqav2",
  "Weight",
  "Weighted",
  "WhisperMel",
  "captions_concept",
  "concept_number",
  "device_prefetch",
  "eval_transform",
  "evaluation_batches",
  "make_loader",
  "make_source",
  "make_tokenizer",
  "write_captions",
]
