"""Questions about images: the answers that a model gives, and the pixels that it says a question is about."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from mmjax.evaluate.answers import prior_accuracy, vqa_accuracy
from mmjax.evaluate.examples import Examples, training_questions
from mmjax.evaluate.forward import text_tokenizer
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from mmjax.objectives.terms.base import joint
from mmjax.types import Encoded

if TYPE_CHECKING:
  from mmjax.data.config import DataConfig
  from mmjax.experiment import Experiment
  from mmjax.run import Run

MOST_CANDIDATES = 100
"""Answers that a decoder can be asked to rank; with more, reading each for each question would take too long."""


def answer_logits(model: Any, batch: Any) -> Float[Array, "batch answers"]:
  """Scores of the answers, by the classifier."""
  return model.answer_logits(joint(_fused(model, batch)))


def relevance_logits(model: Any, batch: Any) -> Float[Array, "batch height width"]:
  """Scores of the pixels, by the mask head."""
  return model.relevance_logits(_fused(model, batch)["image"].tokens)


@dataclasses.dataclass(frozen=True)
class WriteAnswers:
  """(model, batch) -> (greedy answers' ids, log-probability of each candidate, [batch, candidates]).

  Attributes:
    begin: the token that answers begin with.
    config: how they are generated.
    candidates: ids of the answers that are ranked.
  """

  begin: int
  config: GenerateConfig
  candidates: tuple[tuple[int, ...], ...]

  @classmethod
  def of(cls, run: Run) -> WriteAnswers:
    """Make it for a run's tokenizer. There are no candidates if there are more than MOST_CANDIDATES answers."""
    tokenizer = text_tokenizer(run)
    names = tokenizer.answers if len(tokenizer.answers) <= MOST_CANDIDATES else ()
    ids = tokenizer.answer_text(list(names)).tolist()
    begin = int(tokenizer.answer_text([""])[0, 0])
    return cls(begin, GenerateConfig(max_new_tokens=tokenizer.config.answer_length - 1), tuple(map(tuple, ids)))

  def __call__(self, model: Any, batch: Any) -> tuple[Int[Array, "batch t"], Float[Array, "batch candidates"]]:
    context = _fused(model, batch)["text"]
    module, variables = model.unbind()
    prompt = jnp.full((len(context.mask), 1), self.begin, jnp.int32)
    said = generate(module, variables["params"], prompt, context, config=self.config).ids[:, 1:]
    scores = [_likelihood(model, context, jnp.asarray(ids, jnp.int32)) for ids in self.candidates]
    return said, jnp.stack(scores, axis=1) if scores else jnp.zeros((len(prompt), 0))


def _likelihood(model: Any, context: Encoded, ids: Int[Array, "length"]) -> Float[Array, "batch"]:
  """The log-probability of one answer's words after its first token, for every row."""
  rows = jnp.broadcast_to(ids[None], (len(context.mask), len(ids)))
  log_probs = jax.nn.log_softmax(model.decode(rows, context)[:, :-1].astype(jnp.float32))
  said = jnp.take_along_axis(log_probs, rows[:, 1:, None], axis=2)[..., 0]
  return (said * (rows[:, 1:] != model.config.text.pad_id).astype(jnp.float32)).sum(1)


def until_end(ids: Int[np.ndarray, "n t"], eos_id: int) -> Iterator[Int[np.ndarray, " t"]]:
  """Each row without its end token and what follows."""
  for row in ids:
    ends = np.flatnonzero(row == eos_id)
    yield row[: ends[0]] if len(ends) else row


def _fused(model: Any, batch: Any) -> dict[str, Encoded]:
  encoded = model.encode(batch)
  return model.fuse(encoded)


def num_answers(experiment: Experiment) -> int:
  """The number of answers that are ranked: the model's classes or, for a model that has none, the data's."""
  model: Any = experiment.model
  if hasattr(model, "num_answers"):
    return model.num_answers
  from mmjax.data import make_tokenizer

  return len(make_tokenizer(experiment.data).answers)


def accuracy(said: list[str], examples: Examples) -> float:
  """The VQA accuracy of answers to the examples' questions."""
  return vqa_accuracy(said, [record["answers"] for record in examples.records])


def priors(run: Run, examples: Examples) -> dict[str, float]:
  """Scores of answering without a look: by the commonest training answer of all, and by that of each question."""
  return _prior(run.experiment.data, tuple((r["question"], tuple(r["answers"])) for r in examples.records))


@functools.lru_cache(maxsize=2)
def _prior(data: DataConfig, asked: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, float]:
  questions, answers = [question for question, _ in asked], [answer for _, answer in asked]
  return prior_accuracy(questions, answers, training_questions(data))
