"""Images and texts, each encoded once, and what the match head says of any pair of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from mmjax.evaluate.examples import Examples
from mmjax.evaluate.forward import encode_images, encode_strings, gathered, over_rows
from mmjax.evaluate.retrieval import Embedded, Texts, counted
from mmjax.objectives.terms.base import joint
from mmjax.types import Encoded

if TYPE_CHECKING:
  from mmjax.run import Run


class Pairs:
  """Images and captions, each encoded once, and what the match head says of any pair of them.

  Attributes:
    texts: all captions of the images.
    image_concepts, text_concepts: the concepts of images and captions.
    embedded: images and captions in the common space, where the model has one; equal ids answer each other.
    counts: a sentence about which do.
  """

  def __init__(self, run: Run, examples: Examples):
    from mmjax.evaluate.images import Images

    self.run, self.examples = run, examples
    self.texts = Texts.of(examples.records)
    self.image_concepts = np.array([int(record["concept"]) for record in examples.records])
    self.text_concepts = self.image_concepts[self.texts.owner]
    self._image, images = encode_images(run, Images(examples.records, run.experiment.data))
    self._text, texts = encode_strings(run, self.texts.distinct)
    image_ids, text_ids, self.counts = counted(examples.records, self.texts, run.experiment.evaluation.counts)
    self.embedded: tuple[Embedded, Embedded] | None = None
    if images is not None and texts is not None:
      self.embedded = Embedded(images, image_ids), Embedded(texts[self.texts.row], text_ids)

  def match(self, images: Int[np.ndarray, " pairs"], texts: Int[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """Matching score of each image and caption, by their places: the log of the odds that they belong together."""
    if not len(images):
      return np.zeros(0, np.float32)
    pick = lambda encoded, places: jax.tree.map(lambda leaf: leaf[places], encoded)
    take = lambda places: {
      "image": pick(self._image, images[places]),
      "text": pick(self._text, self.texts.row[texts[places]]),
    }
    return gathered(over_rows(self.run, match_logit, len(images), take))


def match_logit(model: Any, pair: dict[str, Encoded]) -> Float[Array, "batch"]:
  """The logit of belonging together minus the other."""
  logits = model.match_logits(joint(model.fuse(pair)))
  return logits[:, 1] - logits[:, 0]
