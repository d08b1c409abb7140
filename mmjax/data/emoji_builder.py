"""The emoji as a TFDS data set: one configuration per artist, ArrayRecord files, no TensorFlow."""

import dataclasses
import io
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow_datasets as tfds

from mmjax.data import splits
from mmjax.data.emoji_draw import SIZE, VENDORS, draw
from mmjax.data.emoji_text import LANGUAGES, Emoji, catalogue


@dataclasses.dataclass
class EmojiConfig(tfds.core.BuilderConfig):
  """One artist's images; with `limit`, of about that many emoji spread over the whole catalogue."""

  vendor: str = "twemoji"
  limit: int | None = None


def selection(held_out: bool, limit: int | None) -> tuple[Emoji, ...]:
  """The emoji of a split: the same ones for every artist. With a limit, every n-th of them."""
  emoji = tuple(item for item in catalogue() if splits.is_held_out(item.concept_group) == held_out)
  return emoji if limit is None else emoji[:: max(1, len(catalogue()) // limit)]


class EmojiBuilder(tfds.core.GeneratorBasedBuilder):
  """Emoji by three independent artists, with captions in many languages, split by concept.

  Splits: "train", and "heldout" (mmjax.data.splits), whose concepts are in no artist's "train".
  """

  name = "emoji"
  VERSION = tfds.core.Version("1.0.0")  # raise it when the split, the captions or the drawing change
  BUILDER_CONFIGS = [EmojiConfig(name=vendor, vendor=vendor) for vendor in VENDORS]  # noqa: RUF012

  advance: Callable[[], None] = staticmethod(lambda: None)
  """Called after each image; the command line moves its progress bar with it."""

  def _info(self) -> tfds.core.DatasetInfo:
    strings = tfds.features.Sequence(tfds.features.Text())
    features = {
      "image": tfds.features.Image(shape=(SIZE, SIZE, 4), encoding_format="png"),
      "codepoint": tfds.features.Text(doc="code point key, see mmjax.data.splits"),
      "concept_group": tfds.features.Text(doc="what the split is made by"),
      "concept": tfds.features.Scalar(np.int32, doc="same number = same emoji in any skin tone"),
      "group": tfds.features.Text(),
      "subgroup": tfds.features.Text(),
      "vendor": tfds.features.Text(),
      "skin_tone": tfds.features.Scalar(np.bool_),
      "captions": dict.fromkeys(("name", "keywords", *LANGUAGES), strings),
    }
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager):
    del dl_manager  # everything is in installed packages
    return {"train": self._generate_examples(False), "heldout": self._generate_examples(True)}

  def _generate_examples(self, held_out: bool) -> Iterator[tuple[str, dict]]:
    config = self.builder_config
    for emoji in selection(held_out, config.limit):
      yield emoji.key, _example(emoji, config.vendor)
      self.advance()


def _example(emoji: Emoji, vendor: str) -> dict:
  return {
    "image": io.BytesIO(draw(emoji, vendor)),
    "codepoint": emoji.key,
    "concept_group": emoji.concept_group,
    "concept": emoji.concept,
    "group": emoji.group,
    "subgroup": emoji.subgroup,
    "vendor": vendor,
    "skin_tone": splits.has_skin_tone(emoji.key),
    "captions": {kind: emoji.captions.get(kind, []) for kind in ("name", "keywords", *LANGUAGES)},
  }
