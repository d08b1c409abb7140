"""CapFilt on captions that are known to be wrong: what it leaves, and its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mmjax.evaluate.captions import caption_words
from mmjax.evaluate.checked import training_sample
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.results import BOOTSTRAPPED, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import captioned, corrupted, source_name, terms
from mmjax.models.protocols import Encodes, Fuses, Matches, Writes

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class CapFilt(Evaluator):
  """Share of right captions among those that CapFilt keeps (Li et al. 2022, BLIP, section 3.3), where
  data.corrupt_captions made some wrong. Chance is the share among the given ones.

  `caption_and_filter` has the same settings. The model is captioner and filter at once here. A caption is right if it
  is, word for word, one of those that the image had. Also measured: the share of images that are left.
  """

  top_p: float = 0.9
  """Captions are sampled from the smallest set of likeliest words with this total probability (nucleus sampling)."""
  beams: int = 1
  """Above 1, captions are written by beam search instead."""
  threshold: float = 0.0
  """Captions are kept whose match logit, the log of the odds, is above it."""
  seed: int = 0
  """Seed of the sampled captions."""

  def __post_init__(self) -> None:
    if self.beams < 1:
      raise ValueError(f"CapFilt.beams is {self.beams}: it must be at least 1")
    if not 0 < self.top_p <= 1:
      raise ValueError(f"CapFilt.top_p is {self.top_p}: it must lie in (0, 1]")

  def applies(self, experiment: Experiment) -> bool:
    writes = any("image" in term.needs for term in terms(experiment, Writes, Encodes, without=(Fuses,)))
    known = captioned(experiment.data) and corrupted(experiment.data)
    return known and writes and bool(terms(experiment, Matches))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [f"{source_name(experiment.data)}_capfilt/{metric}" for metric in ("right_captions", "images_left")]

  def check(self, run: Run, shared: Shared) -> None:
    training_sample(run)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    from mmjax.data import make_source
    from mmjax.data.records import PRIMARY
    from mmjax.evaluators.capfilt import Bootstrap, judge_captions

    data = run.experiment.data
    clean = make_source(dataclasses.replace(data, corrupt_captions=0.0), "train")
    _, records, places = training_sample(run)
    true = [clean[place]["captions"][PRIMARY] for place in places]
    judged = [
      [(is_right(caption.text, known), caption.kept) for caption in captions if caption.kind == PRIMARY]
      for captions, known in zip(judge_captions(Bootstrap(run, run, self), records, places), true, strict=True)
    ]
    right = [good for captions in judged for good, kept in captions if kept]
    left = float(np.mean([any(kept for _, kept in captions) for captions in judged]))
    given = [is_right(text, known) for record, known in zip(records, true) for text in record["captions"][PRIMARY]]
    found = {"right_captions": float(np.mean(right)) if right else 0.0, "images_left": left}
    chance = {"right_captions": float(np.mean(given)), "images_left": 1.0}
    name, title = f"{source_name(data)}_capfilt", "Training captions after CapFilt"
    return [make_result(run, name, "capfilt", title, records, (found, chance), table=BOOTSTRAPPED)]


def is_right(text: str, known: Sequence[str]) -> bool:
  """True if a text is, word for word, one of those that are known."""
  return caption_words(text) in [caption_words(one) for one in known]


def capfilt_settings(experiment: Any) -> CapFilt:
  """The first CapFilt among the evaluators of a configuration; one with default settings where there is none."""
  evaluators = experiment.evaluation.evaluators.values()
  return next((each for each in evaluators if isinstance(each, CapFilt)), CapFilt())
