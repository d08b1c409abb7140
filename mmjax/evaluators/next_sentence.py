"""Prediction of whether one sentence follows another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import batches, shown_examples, shown_name
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.results import WORDS, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries, terms
from mmjax.models.protocols import OrdersSentences

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class NextSentenceAccuracy(Evaluator):
  """Accuracy of telling a text that follows another from one that does not. Chance is the commoner of the two."""

  def applies(self, experiment: Experiment) -> bool:
    return "next" in entries(experiment.data) and bool(terms(experiment, OrdersSentences))

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [f"{shown_name(experiment.data)}_next/next_accuracy"]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples = shown_examples(run, shared)
    right, truth = [], []
    for batch, guess in over_batches(run, second_follows, batches(run, examples), ("text", "segment"), ("next",)):
      right.append(guess == batch["next"])
      truth.append(batch["next"])
    share = float(np.concatenate(truth).mean())
    found = {"next_accuracy": float(np.concatenate(right).mean())}, {"next_accuracy": max(share, 1 - share)}
    title = f"{examples.title}: next sentence"
    return [make_result(run, f"{examples.name}_next", "next_sentence", title, examples, found, table=WORDS)]


def second_follows(model: Any, batch: Any) -> Int[Array, "batch"]:
  """1 where the second text follows the first."""
  text = model.encode_words(batch["text"], segment=batch["segment"])
  return jnp.argmax(model.next_logits(text.pooled), axis=-1)
