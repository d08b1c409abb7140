"""Captions that a model writes for images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
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

  def write(self, run: Run, images: Any) -> list[str]:
    """A caption for every image (anything Run.preprocess takes), by beam search."""
    return written(run, images, WriteCaptions.of(run, beams=self.beams), np.arange(len(images)))


def written(run: Run, images: Any, write: WriteCaptions, numbers: Int[np.ndarray, " n"]) -> list[str]:
  """A caption for every image.

  Args:
    run: a model with a caption decoder.
    images: anything that Run.preprocess takes.
    write: the method of generation.
    numbers: one per image. A sampled caption depends on its image, its number and the seed alone.
  """
  take = lambda places: {"image": run.shown(images, places), "number": numbers[places].astype(np.int32)}
  tokenizer = text_tokenizer(run)
  parts = over_rows(run, write, len(images), take)
  return [tokenizer.decode(row).strip() for ids in parts for row in until_end(ids, tokenizer.eos_id)]


@dataclasses.dataclass(frozen=True)
class WriteCaptions:
  """(model, batch with "image" and "number") -> ids of a caption for each.

  Attributes:
    begin: the token that texts begin with.
    config: how captions are generated.
    seed: of sampled captions.
  """

  begin: int
  config: GenerateConfig
  seed: int = 0

  @classmethod
  def of(cls, run: Run, *, beams: int, top_p: float | None = None, seed: int = 0) -> WriteCaptions:
    """With the begin token and the length of a run's tokenizer.

    Args:
      run: the run.
      beams: number of beams; 1: no beam search.
      top_p: with one beam, sample from the nucleus of this probability; None: take the likeliest word.
      seed: of sampled captions.
    """
    tokenizer = text_tokenizer(run)
    config = GenerateConfig(tokenizer.config.max_length - 1)
    if beams > 1:
      config = dataclasses.replace(config, beams=beams, length_penalty=1.0)
    elif top_p is not None:
      config = dataclasses.replace(config, temperature=1.0, top_p=top_p)
    return cls(int(tokenizer([""])[0, 0]), config, seed)

  def __call__(self, model: Any, batch: Any) -> Int[Array, "batch t"]:
    image = model.encode({"image": batch["image"]})["image"]
    module, variables = model.unbind()
    prompt = jnp.full((len(image.mask), 1), self.begin, jnp.int32)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(self.seed), batch["number"])
    return generate(module, variables["params"], prompt, image, config=self.config, keys=keys).ids[:, 1:]


def _scores(captions: list[str], references: list[list[str]]) -> Metrics:
  """The scores, and the share of captions that are a reference word for word."""
  same = [caption_words(c) in [caption_words(r) for r in many] for c, many in zip(captions, references, strict=True)]
  return caption_scores(captions, references) | {"exact": float(np.mean(same))}
