"""Retrieval between pictures and texts, and between two artists' pictures, from embeddings."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

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


def image_text_retrieval(images: Embedded, texts: Embedded) -> tuple[Metrics, Metrics]:
  """Text to image (`image_retrieval_*`) and picture to text (`text_retrieval_*`): (metrics, chance).

  A picture may have several texts and a text several pictures; any of them counts.
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
