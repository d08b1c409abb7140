"""Sources: one file each, with the configuration and the records that it opens."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.data.sources.base import Reading, Source
  from mmjax.data.sources.class_folders import ClassFolders
  from mmjax.data.sources.coco import Coco
  from mmjax.data.sources.documents import Documents
  from mmjax.data.sources.easy_vqa import EasyVqa
  from mmjax.data.sources.emoji import Emoji
  from mmjax.data.sources.flickr30k import Flickr30k
  from mmjax.data.sources.folder import Folder
  from mmjax.data.sources.instruments import Instruments
  from mmjax.data.sources.interactions import InteractionFile, InteractionSource
  from mmjax.data.sources.movie_lens import MovieLens
  from mmjax.data.sources.scenes import Scenes
  from mmjax.data.sources.shards import Shards
  from mmjax.data.sources.spoken_digits import SpokenDigits
  from mmjax.data.sources.table_file import TableFile
  from mmjax.data.sources.texts import Texts
  from mmjax.data.sources.tfds import Tfds
  from mmjax.data.sources.vqav2 import Vqav2
  from mmjax.data.sources.weighted import Weighted
else:
  __getattr__, __dir__ = lazy_names(
    __name__,
    {
      "base": ["Reading", "Source"],
      "class_folders": ["ClassFolders"],
      "coco": ["Coco"],
      "documents": ["Documents"],
      "easy_vqa": ["EasyVqa"],
      "emoji": ["Emoji"],
      "flickr30k": ["Flickr30k"],
      "folder": ["Folder"],
      "interactions": ["InteractionFile", "InteractionSource"],
      "movie_lens": ["MovieLens"],
      "instruments": ["Instruments"],
      "scenes": ["Scenes"],
      "shards": ["Shards"],
      "spoken_digits": ["SpokenDigits"],
      "table_file": ["TableFile"],
      "texts": ["Texts"],
      "tfds": ["Tfds"],
      "vqav2": ["Vqav2"],
      "weighted": ["Weighted"],
    },
  )

__all__ = [
  "ClassFolders",
  "Coco",
  "Documents",
  "EasyVqa",
  "Emoji",
  "Flickr30k",
  "Folder",
  "Instruments",
  "InteractionFile",
  "InteractionSource",
  "MovieLens",
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
]
