"""Images and texts, each encoded once, and what the match head says of any pair of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from mmjax.data.records import PRIMARY
from mmjax.evaluate.examples import Examples
from mmjax.evaluate.forward import encode_images, encode_strings, gathered, over_rows
from mmjax.evaluate.retrieval import Embedded
from mmjax.objectives.terms.base import joint
from mmjax.types import Encoded

if TYPE_CHECKING:
  from mmjax.run import Run


class Pairs:
  """Images and captions, each encoded once, and what the match head says of any pair of them.

  Attributes:
    captions, concepts: every caption once for each concept it is said of.
    place: where a (caption, concept) stands among them.
    own: each picture's concept.
    first: where each picture's first caption stands.
    embedded: pictures and captions in the common space, where the model has one.
  """

  def __init__(self, run: Run, examples: Examples):
    from mmjax.evaluate.images import Images

    self.run, self.examples = run, examples
    captions = dict.fromkeys(
      (text, int(record["concept"])) for record in examples.records for text in record["captions"][PRIMARY]
    )
    self.captions = [text for text, _ in captions]
    self.concepts = np.array([concept for _, concept in captions])
    self.own = np.array([int(record["concept"]) for record in examples.records])
    self.place = {pair: number for number, pair in enumerate(captions)}
    self.first = np.array([self.place[r["captions"][PRIMARY][0], int(r["concept"])] for r in examples.records])
    self._image, images = encode_images(run, Images(examples.records, run.experiment.data))
    self._text, texts = encode_strings(run, self.captions)
    self.embedded: tuple[Embedded, Embedded] | None = None
    if images is not None and texts is not None:
      self.embedded = Embedded(images, self.own), Embedded(texts, self.concepts)

  def match(self, images: Int[np.ndarray, " pairs"], texts: Int[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """Matching score of each image and text: the log of the odds that they belong together."""
    if not len(images):
      return np.zeros(0, np.float32)
    pick = lambda encoded, places: jax.tree.map(lambda leaf: leaf[places], encoded)
    take = lambda places: (pick(self._image, images[places]), pick(self._text, texts[places]))
    return gathered(over_rows(self.run, match_logit, len(images), take))


def match_logit(model: Any, pair: tuple[Encoded, Encoded]) -> Float[Array, "batch"]:
  """The logit of belonging together minus the other."""
  logits = model.match_logits(joint(model.fuse(*pair)))
  return logits[:, 1] - logits[:, 0]
