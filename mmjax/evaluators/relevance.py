"""The pixels that a question is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import batches, shown_examples
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.overlap import constant_overlaps, mean_overlap, overlaps
from mmjax.evaluate.questions import relevance_logits
from mmjax.evaluate.results import MASKS, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries, terms
from mmjax.models.protocols import Grounds

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class RelevantPixels(Evaluator):
  """Intersection over union of the pixels that the model marks and those that a question is about."""

  def applies(self, experiment: Experiment) -> bool:
    return "relevance" in entries(experiment.data) and bool(terms(experiment, Grounds))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [f"{experiment.data.source.title}_relevance/miou"]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples = shown_examples(run, shared)
    found, everything, nothing = [], [], []
    for batch, logits in over_batches(run, relevance_logits, batches(run, examples), ("image", "text"), ("relevance",)):
      found.append(overlaps(logits, batch["relevance"]))
      constants = constant_overlaps(batch["relevance"])
      everything.append(constants[0])
      nothing.append(constants[1])
    scores = mean_overlap(*(np.concatenate(parts) for parts in (found, everything, nothing)))
    title = f"{examples.title}: relevant pixels"
    return [make_result(run, f"{examples.name}_relevance", "relevance", title, examples, scores, table=MASKS)]
