"""Every --data.* setting."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from mmjax.data.columns.base import Column
from mmjax.data.images.config import AugmentationConfig
from mmjax.data.sources.base import Reading, Source
from mmjax.data.sources.emoji import Emoji
from mmjax.data.text.config import TokenizerConfig


@dataclasses.dataclass(frozen=True)
class Stream:
  """A further source of a run. Each batch has rows of every stream; a loss term names the stream that it reads."""

  source: Source = Emoji()
  """Source of the records, with its own settings."""
  columns: Mapping[str, Column] = dataclasses.field(default_factory=dict, hash=False)
  """Arrays of the stream's rows by name, and what each is made of; empty: those of the source."""
  share: float = 0.5
  """Share of run.batch_size that is rows of this stream."""

  def __post_init__(self):
    if not 0 < self.share < 1:
      raise ValueError(f"the share of a stream is {self.share}: it must lie in (0, 1)")


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Source of the records, and how they are turned into batches."""

  source: Source = Emoji()
  """Source of the records, with its own settings."""
  dir: str = Reading.dir
  """Folder for built data, trained tokenizers and TFDS data sets."""
  name_weight: float = 0.5
  """Relative weight with which a caption is the name (of an emoji) or the caption (of anything else)."""
  keywords_weight: float = 0.2
  """Relative weight of a random handful of keywords as the caption."""
  languages_weight: float = 0.3
  """Relative weight of the name in another language, all languages together."""
  corrupt_captions: float = 0.0
  """Share of the training records that get the captions of another one, always the same ones (controlled noise)."""
  captions_from: str | None = None
  """Train on the records of this file alone, with its captions; write_captions wrote it (CapFilt's second round)."""
  num_answers: int = 3129
  """Questions: how many of the most frequent training answers are classes; other answers are class -1."""
  tokenizer: TokenizerConfig = TokenizerConfig()
  """Tokenizer settings."""
  augmentation: AugmentationConfig = AugmentationConfig()
  """Random changes of training images."""
  trim: bool = False
  """Cut off margins that are transparent or of the corner's colour, in training and in evaluation."""
  mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
  """Subtracted from the colours (0 to 1)."""
  std: tuple[float, float, float] = (0.5, 0.5, 0.5)
  """Colours are divided by it after the mean is gone."""
  preprocess: str | None = None
  """Folder of a checkpoint whose image preprocessing evaluation uses. None: the middle square, resized (bilinear), on
  white."""
  interpolation: Literal["bilinear", "bicubic"] = "bilinear"
  """Filter that resizes images in evaluation (CLIP: bicubic). It is antialiased. Masks are always bilinear."""
  square: Literal["crop", "squash"] = "crop"
  """Evaluation, and training with a crop_scale of 1 1, take the middle square of an image (CLIP) or squash the whole
  image into a square (SigLIP)."""
  columns: Mapping[str, Column] = dataclasses.field(default_factory=dict, hash=False)
  """Arrays of a batch by name, and what each is made of; empty: those of the source."""
  streams: Mapping[str, Stream] = dataclasses.field(default_factory=dict, hash=False)
  """Further sources of the run, by name (multi-task training). Terms with `stream` NAME read the rows of stream NAME,
  other terms those of `source`. Streams share the tokenizer, the settings of the loader and, for columns that
  have none of their own, the augmentation."""
  views: Literal[1, 2] = 1
  """2: rows also have `text2` and `image2`, another artist's image of the same (or this one again)."""
  workers: int = 0
  """Processes that prepare batches; 0 prepares them in a thread of this process."""
  prefetch: int = 2
  """Batches prepared ahead, per worker."""
  cache_mb: int = 512
  """Memory for decoded images, per worker; what does not fit is decoded each time. 0 switches it off."""
  max_pixels: int = 50_000_000
  """An image whose header claims more pixels is refused before it is decoded; one takes 24 bytes a pixel, at most."""
  max_record_mb: int = 64
  """An image file with more megabytes is refused unread (and so is a caption over 1 MB); a record takes at most its
  file twice, and 56 MB."""
  on_bad_record: Literal["error", "skip"] = "error"
  """error: stop and name the record; skip: log it, and take the next good one in its place (likewise, shards)."""

  def of_stream(self, name: str) -> "DataConfig":
    """Settings of one stream, as if it were the only data of the run. "": the stream of `source`."""
    if not name:
      return dataclasses.replace(self, streams={})
    stream, alone = self.streams[name], DataConfig()
    own = {field: getattr(alone, field) for field in ("views", "corrupt_captions", "captions_from", "streams")}
    return dataclasses.replace(self, source=stream.source, columns=stream.columns, **own)

  @property
  def reading(self) -> Reading:
    """The settings that the source may need."""
    return Reading(self.dir, self.on_bad_record, self.max_record_mb * 2**20)
