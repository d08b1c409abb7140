"""Captions that a model writes for pictures."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from mmjax.data.records import PRIMARY
from mmjax.evaluate.captions import caption_scores, caption_words
from mmjax.evaluate.coco_captions import java_scores
from mmjax.evaluate.examples import Examples
from mmjax.evaluate.forward import over_rows
from mmjax.evaluate.matching import other_texts
from mmjax.evaluate.pictures import Pictures
from mmjax.evaluate.questions import until_end
from mmjax.evaluate.results import Metrics, Result
from mmjax.evaluate.task import Task
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig


def run(run: Any, examples: Examples) -> list[Result]:
  """Captions against people's; chance is what the same captions score when each is given to another picture."""
  pictures = Pictures(examples.records, run.experiment.data)
  captions = write_captions(run, pictures)
  references = [list(record["captions"][PRIMARY]) for record in examples.records]
  other = other_texts(np.array([record["concept"] for record in examples.records]))
  swapped = [captions[place] for place in np.where(other < 0, np.arange(len(other)), other).tolist()]
  scores, chance = _scores(captions, references), _scores(swapped, references)
  notes: dict[str, str] = {}
  if run.experiment.evaluation.java_metrics:
    more, notes = java_scores(captions, references)
    scores, chance = scores | more, chance | java_scores(swapped, references)[0]
  title = f"{examples.title}: captions written"
  return [Task(run).result(f"{examples.name}_captions", "captioning", title, examples, (scores, chance), missing=notes)]


def write_captions(run: Any, pictures: Any) -> list[str]:
  """A caption for every picture (anything Run.preprocess takes), by beam search (evaluation.beams)."""
  take = lambda places: {"image": run.shown(pictures, places)}
  parts = over_rows(run, WriteCaptions.of(run), len(pictures), take)
  return [run.tokenizer.decode(row).strip() for ids in parts for row in until_end(ids, run.tokenizer.eos_id)]


@dataclasses.dataclass(frozen=True)
class WriteCaptions:
  """(model, batch with "image") -> ids of a caption for each.

  Attributes:
    begin: the token that texts begin with.
    config: how captions are generated.
  """

  begin: int
  config: GenerateConfig

  @classmethod
  def of(cls, run: Any) -> "WriteCaptions":
    """As a run's tokenizer and evaluation have them."""
    beams = run.experiment.evaluation.beams
    room = run.tokenizer.config.max_length - 1
    config = GenerateConfig(max_new_tokens=room, beams=beams, length_penalty=1.0 if beams > 1 else 0.0)
    return cls(int(run.tokenizer([""])[0, 0]), config)

  def __call__(self, model: Any, batch: Any) -> Int[Array, "batch t"]:
    picture = model.encode(batch)["image"]
    module, variables = model.unbind()
    prompt = jnp.full((len(picture.mask), 1), self.begin, jnp.int32)
    return generate(module, variables["params"], prompt, picture, config=self.config).ids[:, 1:]


def _scores(captions: list[str], references: list[list[str]]) -> Metrics:
  """The scores, and the share of captions that are a reference word for word."""
  same = [caption_words(c) in [caption_words(r) for r in many] for c, many in zip(captions, references, strict=True)]
  return caption_scores(captions, references) | {"exact": float(np.mean(same))}
