"""Language modelling: the loss of each next word of a text, without an image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jax import Array
from jaxtyping import Float, Int

from mmjax.evaluate.checked import checked_examples
from mmjax.evaluate.evaluator import Evaluator, Shared
from mmjax.evaluate.examples import batches, shown_examples, shown_name, training_records
from mmjax.evaluate.forward import over_batches, text_tokenizer
from mmjax.evaluate.ngrams import Bigrams
from mmjax.evaluate.results import LANGUAGE, Metrics, Result
from mmjax.evaluate.task import make_result
from mmjax.evaluate.traits import entries, terms
from mmjax.models.protocols import Encodes, Writes
from mmjax.objectives.losses.captioning import text_log_likelihood

if TYPE_CHECKING:
  from mmjax.experiment import Experiment
  from mmjax.run import Run


@dataclasses.dataclass(frozen=True)
class LanguageModelling(Evaluator):
  """Loss per token in nats, and perplexity, of the validation texts.

  Chance is the entropy of the tokens themselves: the best that a model can do which ignores what comes before. The
  floor is a bigram model of the training texts, which knows the last token only.
  """

  def applies(self, experiment: Experiment) -> bool:
    alone = any("image" not in term.needs for term in terms(experiment, Writes, without=(Encodes,)))
    return "text" in entries(experiment.data) and alone

  def metrics(self, experiment: Experiment) -> Sequence[str]:
    return [f"{shown_name(experiment.data)}_language/{name}" for name in ("token_loss", "perplexity")]

  def check(self, run: Run, shared: Shared) -> None:
    checked_examples(run, shared)

  def run(self, run: Run, shared: Shared) -> list[Result]:
    examples = shown_examples(run, shared)
    total, tokens, rows = 0.0, [], []
    for batch, likelihood in over_batches(run, log_likelihood, batches(run, examples), ("text",), ("text",)):
      total -= float(likelihood.sum(dtype=np.float64))
      rows.append(batch["text"])
      following = batch["text"][:, 1:]
      tokens.append(following[following != text_tokenizer(run).pad_id])
    known = np.concatenate(tokens)
    found = per_token(total / len(known)), per_token(entropy(known))
    title = f"{examples.title}: next words"
    return [
      make_result(
        run, f"{examples.name}_language", "language", title, examples, found, table=LANGUAGE,
        floor=per_token(bigram_loss(run, np.concatenate(rows))), floor_is="a bigram model of the training texts",
      )
    ]  # fmt: skip


def log_likelihood(model: Any, batch: Any) -> Float[Array, "batch"]:
  """The log-probability of each text, given its first token."""
  ids = batch["text"]
  return text_log_likelihood(model.decode(ids, None), ids, pad_id=model.config.text.pad_id)


def bigram_loss(run: Run, ids: Int[np.ndarray, "n t"]) -> float:
  """Loss per token of texts by the bigrams of the training texts, of an even sample where there are many."""
  tokenizer = text_tokenizer(run)
  seen = Bigrams(training_ids(run), pad_id=tokenizer.pad_id, vocab_size=tokenizer.vocab_size)
  return float(seen.losses(ids, pad_id=tokenizer.pad_id).mean())


def training_ids(run: Run) -> Int[np.ndarray, "n t"]:
  """Token ids of the training texts as evaluation shows them: main captions, and pairs of sentences half and half."""
  from mmjax.data import evaluation_batches
  from mmjax.data.features import run_columns

  source, records = training_records(run.experiment.data)
  columns = {"text": run_columns(run.experiment.data, source)["text"]}
  found = evaluation_batches(records, None, run.tokenizer, batch_size=len(records), columns=columns)
  return np.concatenate([batch["text"][batch["valid"]] for batch in found])


def per_token(loss: float) -> Metrics:
  """The loss of a token in nats, and the perplexity."""
  return {"token_loss": loss, "perplexity": math.exp(min(loss, 700.0))}


def entropy(values: Int[np.ndarray, " n"]) -> float:
  """The entropy of the values' frequencies, in nats."""
  shares = np.unique(values, return_counts=True)[1] / len(values)
  return float(-(shares * np.log(shares)).sum())
