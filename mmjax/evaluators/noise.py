"""Wrong captions that were put into the training data on purpose: does the match head tell them from the right ones?"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmjax.evaluate.checked import training_sample
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import Examples
from mmjax.evaluate.matching import match_scores
from mmjax.evaluate.pairs import Pairs
from mmjax.evaluate.results import MATCHING, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import captioned, corrupted, source_name, terms
from mmjax.evaluators.matching import ITM
from mmjax.models.protocols import Matches

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run


log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CaptionNoise(Evaluator):
  """Training images with the captions they were trained with, of which data.corrupt_captions are another's.

  At most evaluation.max_examples of them. The model has seen them all: this says how good a filter it is, not how well
  it matches. A sample in which all captions are right gives no results.
  """

  def applies(self, experiment: Experiment) -> bool:
    return captioned(experiment.data) and corrupted(experiment.data) and bool(terms(experiment, Matches))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [f"{source_name(experiment.data)}_noisy/{metric}" for metric in ITM]

  def check(self, run: Run, shared: Shared) -> None:
    examples, right = self._noisy(run)
    if right.all() or not right.any():
      log.warning("%s: noise will give no results.", examples.title)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples, right = self._noisy(run)
    if right.all() or not right.any():
      return []
    pairs = Pairs(run, examples)
    found = match_scores(pairs.match(np.arange(len(examples)), pairs.texts.first), right)
    return [make_result(run, examples.name, "image_text_matching", examples.title, examples, found, table=MATCHING)]

  def _noisy(self, run: Run) -> tuple[Examples, np.ndarray]:
    """A sample of the training records, and which of them have their right captions."""
    source, records, places = training_sample(run)  # a CorruptedSource, since data.corrupt_captions is set
    right = ~source.corrupted[places]
    title = f"Training captions, {1 - right.mean():.0%} wrong"
    return Examples(f"{source_name(run.experiment.data)}_noisy", title, records, ()), right
