"""Captions that a model writes for images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from mmjax.evaluate.captions import CAPTION_SCORES, caption_scores, caption_words
from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.coco_captions import java_metrics, java_scores
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import shown_examples, shown_name
from mmjax.evaluate.forward import over_rows, text_tokenizer
from mmjax.evaluate.matching import other_texts
from mmjax.evaluate.questions import until_end
from mmjax.evaluate.results import CAPTIONS, Metrics, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import captioned, terms
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from mmjax.models.protocols import Encodes, Fuses, Writes

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.report.page import Section
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class WrittenCaptions(Evaluator):
  """Captions against those of people. Chance is the score of the same captions, each given to another image."""

  beams: int = 3
  """Texts that the beam search follows at once; 1: the likeliest word each time."""
  java_metrics: bool = False
  """METEOR and SPICE too, by pycocoevalcap's Java programs (pip install 'mmjax[captions]')."""

  def __post_init__(self) -> None:
    if self.beams < 1:
      raise ValueError(f"WrittenCaptions.beams is {self.beams}: it must be at least 1")

  def applies(self, experiment: Experiment) -> bool:
    written = terms(experiment, Writes, Encodes, without=(Fuses,))
    return captioned(experiment.data) and any("image" in term.needs for term in written)

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    names = [*CAPTION_SCORES, "exact", *(java_metrics() if self.java_metrics else ())]
    return [f"{shown_name(experiment.data)}_captions/{name}" for name in names]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    from mmjax.data.records import PRIMARY
    from mmjax.evaluate.images import Images

    examples = shown_examples(run, shared)
    captions = self.write(run, Images(examples.records, run.experiment.data))
    references = [list(record["captions"][PRIMARY]) for record in examples.records]
    other = other_texts(np.array([record["concept"] for record in examples.records]))
    swapped = [captions[place] for place in np.where(other < 0, np.arange(len(other)), other).tolist()]
    scores, chance = _scores(captions, references), _scores(swapped, references)
    notes: dict[str, str] = {}
    if self.java_metrics:
      more, notes = java_scores(captions, references)
      scores, chance = scores | more, chance | java_scores(swapped, references)[0]
    return [
      make_result(
        run, f"{examples.name}_captions", "captioning", f"{examples.title}: captions written", examples,
        (scores, chance), table=CAPTIONS, missing=notes,
      )
    ]  # fmt: skip

  def sections(self, run: Run, shared: Shared) -> list[Section]:
    from mmjax.report.showcase import captions

    return [captions(run, shown_examples(run, shared), lambda pictures: self.write(run, pictures))]

  def write(self, run: Run, pictures: Any) -> list[str]:
    """A caption for every picture (anything Run.preprocess takes), by beam search."""
    take = lambda places: {"image": run.shown(pictures, places)}
    parts = over_rows(run, WriteCaptions.of(run, self.beams), len(pictures), take)
    tokenizer = text_tokenizer(run)
    return [tokenizer.decode(row).strip() for ids in parts for row in until_end(ids, tokenizer.eos_id)]


def caption_writer(run: Run) -> WrittenCaptions:
  """The first evaluator of captions in a run's configuration; one with default settings where there is none."""
  evaluators = run.experiment.evaluation.evaluators.values()
  return next((each for each in evaluators if isinstance(each, WrittenCaptions)), WrittenCaptions())


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
  def of(cls, run: Run, beams: int) -> WriteCaptions:
    """With the begin token and the length of a run's tokenizer."""
    tokenizer = text_tokenizer(run)
    room = tokenizer.config.max_length - 1
    config = GenerateConfig(max_new_tokens=room, beams=beams, length_penalty=1.0 if beams > 1 else 0.0)
    return cls(int(tokenizer([""])[0, 0]), config)

  def __call__(self, model: Any, batch: Any) -> Int[Array, "batch t"]:
    picture = model.encode(batch)["image"]
    module, variables = model.unbind()
    prompt = jnp.full((len(picture.mask), 1), self.begin, jnp.int32)
    return generate(module, variables["params"], prompt, picture, config=self.config).ids[:, 1:]


def _scores(captions: list[str], references: list[list[str]]) -> Metrics:
  """The scores, and the share of captions that are a reference word for word."""
  same = [caption_words(c) in [caption_words(r) for r in many] for c, many in zip(captions, references, strict=True)]
  return caption_scores(captions, references) | {"exact": float(np.mean(same))}
