"""Pictures with texts through the match head: is it told what belongs together, and does it better retrieval?"""

from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from mmjax.data.records import PRIMARY
from mmjax.evaluate.examples import Examples
from mmjax.evaluate.forward import encode_pictures, encode_strings, gathered, over_rows
from mmjax.evaluate.matching import hardest_texts, match_scores, other_texts
from mmjax.evaluate.pictures import Pictures
from mmjax.evaluate.reranking import reranked
from mmjax.evaluate.results import Result
from mmjax.evaluate.retrieval import Embedded
from mmjax.evaluate.task import Task
from mmjax.objectives.terms.base import joint
from mmjax.types import Encoded


def run(run: Any, examples: Examples) -> list[Result]:
  """Matching with random and hard negatives, and retrieval before and after re-ranking; of one concept, nothing."""
  if len({int(record["concept"]) for record in examples.records}) < 2:
    return []
  shown = Pairs(run, examples)
  other = other_texts(shown.own)
  results = [matching(shown, "random", np.where(other < 0, -1, shown.first[other]))]
  if shown.embedded is not None:
    images, texts = shown.embedded
    results.append(matching(shown, "hard", hardest_texts(images.rows, texts.rows, images.ids, texts.ids)))
    if run.experiment.evaluation.rerank:
      results.append(reranking(shown, images, texts))
  return results


class Pairs:
  """Pictures and captions, each encoded once, and what the match head says of any pair of them.

  Attributes:
    captions, concepts: every caption once for each concept it is said of.
    place: where a (caption, concept) stands among them.
    own: each picture's concept.
    first: where each picture's first caption stands.
    embedded: pictures and captions in the common space, where the model has one.
  """

  def __init__(self, run: Any, examples: Examples):
    self.run, self.examples = run, examples
    captions = dict.fromkeys(
      (text, int(record["concept"])) for record in examples.records for text in record["captions"][PRIMARY]
    )
    self.captions = [text for text, _ in captions]
    self.concepts = np.array([concept for _, concept in captions])
    self.own = np.array([int(record["concept"]) for record in examples.records])
    self.place = {pair: number for number, pair in enumerate(captions)}
    self.first = np.array([self.place[r["captions"][PRIMARY][0], int(r["concept"])] for r in examples.records])
    self._image, images = encode_pictures(run, Pictures(examples.records, run.experiment.data))
    self._text, texts = encode_strings(run, self.captions)
    self.embedded: tuple[Embedded, Embedded] | None = None
    if images is not None and texts is not None:
      self.embedded = Embedded(images, self.own), Embedded(texts, self.concepts)

  def match(self, images: Int[np.ndarray, " pairs"], texts: Int[np.ndarray, " pairs"]) -> Float[np.ndarray, " pairs"]:
    """How much more likely each picture and text belong together than not, in logits."""
    if not len(images):
      return np.zeros(0, np.float32)
    pick = lambda encoded, places: jax.tree.map(lambda leaf: leaf[places], encoded)
    take = lambda places: (pick(self._image, images[places]), pick(self._text, texts[places]))
    return gathered(over_rows(self.run, match_logit, len(images), take))


def match_logit(model: Any, pair: tuple[Encoded, Encoded]) -> Float[Array, "batch"]:
  """The logit of belonging together minus the other."""
  logits = model.match_logits(joint(model.fuse(*pair)))
  return logits[:, 1] - logits[:, 0]


def matching(shown: Pairs, negatives: str, other: Int[np.ndarray, " n"]) -> Result:
  """Every picture with its first caption, and with another: drawn at random, or the most similar ("hard").

  Args:
    other: for each picture the place of that other caption; -1 where there is none.
  """
  kept = np.flatnonzero(other >= 0)
  images, texts = np.concatenate([np.arange(len(shown.own)), kept]), np.concatenate([shown.first, other[kept]])
  matches = np.arange(len(images)) < len(shown.own)
  found = match_scores(shown.match(images, texts), matches)
  title = f"{shown.examples.title}: its own text, or {'any' if negatives == 'random' else 'the most similar'} other"
  return _result(shown, f"itm_{negatives}", "image_text_matching", title, found, n=len(images))


def reranking(shown: Pairs, images: Embedded, texts: Embedded) -> Result:
  """Retrieval both ways, the first candidates by similarity ordered anew by the match head."""
  top = shown.run.experiment.evaluation.rerank
  ways = (
    (texts, images, lambda queries, items: shown.match(items, queries), "image_retrieval"),
    (images, texts, shown.match, "text_retrieval"),
  )
  found = [reranked(queries, gallery, match, top, prefix) for queries, gallery, match, prefix in ways]
  after, chance, before = (one | other for one, other in zip(*found, strict=True))
  title = f"{shown.examples.title}, first {top} re-ranked"
  more = {"gallery": len(images), "floor": before, "floor_is": "retrieval by similarity alone, not re-ranked"}
  return _result(shown, "reranked", "zeroshot_retrieval", title, (after, chance), **more)


def _result(shown: Pairs, suffix: str, task: str, title: str, found: Any, **more: Any) -> Result:
  return Task(shown.run).result(f"{shown.examples.name}_{suffix}", task, title, shown.examples, found, **more)
