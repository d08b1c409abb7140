"""Language modelling: the loss of each next word of a text, without an image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jax import Array
from jaxtyping import Float, Int

from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import batches, shown_examples, shown_name
from mmjax.evaluate.forward import over_batches, text_tokenizer
from mmjax.evaluate.results import LANGUAGE, Metrics, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries, terms
from mmjax.models.protocols import Writes
from mmjax.objectives.losses.captioning import text_log_likelihood

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class LanguageModelling(Evaluator):
  """Loss per token in nats, and perplexity, of the validation texts.

  Chance is the entropy of the tokens themselves: the best that a model can do which ignores what comes before.
  """

  def applies(self, experiment: Experiment) -> bool:
    alone = any("image" not in term.needs for term in terms(experiment, Writes))
    return "text" in entries(experiment.data) and alone

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [f"{shown_name(experiment.data)}_language/{name}" for name in ("token_loss", "perplexity")]

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples = shown_examples(run, shared)
    total, tokens = 0.0, []
    for batch, likelihood in over_batches(run, log_likelihood, batches(run, examples), ("text",), ("text",)):
      total -= float(likelihood.sum(dtype=np.float64))
      following = batch["text"][:, 1:]
      tokens.append(following[following != text_tokenizer(run).pad_id])
    known = np.concatenate(tokens)
    found = per_token(total / len(known)), per_token(entropy(known))
    title = f"{examples.title}: next words"
    return [make_result(run, f"{examples.name}_language", "language", title, examples, found, table=LANGUAGE)]


def log_likelihood(model: Any, batch: Any) -> Float[Array, "batch"]:
  """The log-probability of each text, given its first token."""
  ids = batch["text"]
  return text_log_likelihood(model.decode(ids, None), ids, pad_id=model.config.text.pad_id)


def per_token(loss: float) -> Metrics:
  """The loss of a token in nats, and the perplexity."""
  return {"token_loss": loss, "perplexity": math.exp(min(loss, 700.0))}


def entropy(values: Int[np.ndarray, " n"]) -> float:
  """The entropy of the values' frequencies, in nats."""
  shares = np.unique(values, return_counts=True)[1] / len(values)
  return float(-(shares * np.log(shares)).sum())
