"""Retrieval between images and texts, and between two artists' images, from embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmjax.data.records import PRIMARY
from mmjax.evaluate.metrics import chance_recalls, recalls, retrieval_ranks
from mmjax.evaluate.results import Metrics


@dataclass(frozen=True)
class Embedded:
  """Unit-norm rows and what each shows; rows with the same id answer each other."""

  rows: Float[np.ndarray, "n dim"]
  ids: Int[np.ndarray, " n"]

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, keep: np.ndarray) -> "Embedded":
    return Embedded(self.rows[keep], self.ids[keep])

  def shuffled(self, seed: int = 0) -> "Embedded":
    """A negative control: the same rows, their ids permuted, so that nothing is left to find."""
    return Embedded(self.rows, np.random.default_rng(seed).permutation(self.ids))


@dataclass(frozen=True)
class Texts:
  """All captions of some images, in the images' order; a caption that two images have is there twice.

  Attributes:
    captions: the captions.
    owner: place of the image that each caption is of.
    distinct: every different caption once.
    row: place of each caption in `distinct`.
  """

  captions: list[str]
  owner: Int[np.ndarray, " n"]
  distinct: list[str]
  row: Int[np.ndarray, " n"]

  @classmethod
  def of(cls, records: Sequence[Any]) -> "Texts":
    """The main captions of records."""
    captions = [text for record in records for text in record["captions"][PRIMARY]]
    owner = np.repeat(np.arange(len(records)), [len(record["captions"][PRIMARY]) for record in records])
    place = {text: number for number, text in enumerate(dict.fromkeys(captions))}
    return cls(captions, owner, list(place), np.array([place[text] for text in captions], np.int64))

  @property
  def first(self) -> Int[np.ndarray, " images"]:
    """Place of each image's first caption."""
    return np.flatnonzero(np.diff(self.owner, prepend=-1))

  def shared(self) -> float:
    """Share of the captions that are a caption of another image too."""
    images = np.bincount(np.unique(np.stack([self.row, self.owner]), axis=1)[0], minlength=len(self.distinct))
    return float(np.mean(images[self.row] > 1))


def counted(records: Sequence[Any], texts: Texts, counts: str) -> tuple[np.ndarray, np.ndarray, str]:
  """Ids of images and captions by which they answer each other, and a sentence about them.

  Args:
    records: the images' records.
    texts: their captions.
    counts: evaluation.counts. "own": an image and its own captions have the same id; "concept": those of a concept.
  """
  if counts == "concept":
    concepts = np.array([int(record["concept"]) for record in records])
    return concepts, concepts[texts.owner], "all images and captions of the same concept"
  said, shared = "an image's own captions, as CLIP_benchmark", texts.shared()
  if shared > 0.5:
    said += f" ({shared:.0%} of them are other images' captions too, which --evaluation.counts concept would count)"
  return np.arange(len(records)), texts.owner, said


def image_text_retrieval(images: Embedded, texts: Embedded) -> tuple[Metrics, Metrics]:
  """Text to image (`image_retrieval_*`) and image to text (`text_retrieval_*`): (metrics, chance).

  Texts and images with the same id answer each other. An image may have several texts, and a text several images; any
  of them counts.
  """
  to_image, image_chance = one_way(texts, images, "image_retrieval")
  to_text, text_chance = one_way(images, texts, "text_retrieval")
  return to_image | to_text, image_chance | text_chance


def image_retrieval(queries: Embedded, gallery: Embedded) -> tuple[Metrics, Metrics]:
  """Image to image (`image_retrieval_*`): (metrics, chance)."""
  return one_way(queries, gallery, "image_retrieval")


def one_way(queries: Embedded, gallery: Embedded, prefix: str) -> tuple[Metrics, Metrics]:
  found = retrieval_ranks(queries.rows, gallery.rows, queries.ids, gallery.ids)
  return recalls(found, prefix), chance_recalls(queries.ids, gallery.ids, prefix)
