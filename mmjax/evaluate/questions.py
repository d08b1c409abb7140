"""Questions about pictures: the answers, their ranks, written answers, and the pixels that a question is about."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from mmjax.evaluate.answers import answer_ranks, prior_accuracy, ranking, vqa_accuracy
from mmjax.evaluate.examples import Examples, batches, training_questions
from mmjax.evaluate.forward import over_batches
from mmjax.evaluate.matching import class_report
from mmjax.evaluate.overlap import constant_overlaps, mean_overlap, overlaps
from mmjax.evaluate.results import Result
from mmjax.evaluate.task import Task
from mmjax.models.generate import generate
from mmjax.models.next_word import GenerateConfig
from mmjax.objectives.terms.base import joint
from mmjax.types import Encoded

MOST_CANDIDATES = 100
"""Answers that a decoder can be asked to rank; with more, reading each for each question would take too long."""


def run(run: Any, examples: Examples) -> list[Result]:
  """Results of what the run was trained for: answers by class, written answers, relevant pixels."""
  trained = {objective.name for objective in run.experiment.objectives}
  results = [answered(run, examples)] if "answer" in trained else []
  results += [written(run, examples)] if "answer_text" in trained else []
  return results + ([located(run, examples)] if "relevance" in trained else [])


def answered(run: Any, examples: Examples) -> Result:
  """The likeliest class: VQA accuracy, the true answer's rank, and precision and recall per answer."""
  names, ranks, truth, guesses = run.tokenizer.answers, [], [], []
  for batch, logits in over_batches(run, answer_logits, batches(run, examples), ("image", "text"), ("answer",)):
    ranks.append(answer_ranks(logits, batch["answer"]))
    truth.append(batch["answer"])
    guesses.append(logits.argmax(axis=1))
  known, guess = np.concatenate(truth), np.concatenate(guesses)
  order, chance = ranking(np.concatenate(ranks), len(names))
  priors = _priors(run, examples)
  metrics = {"vqa_accuracy": _accuracy([names[g] for g in guess], examples)} | order
  found = metrics, {"vqa_accuracy": priors["question_prior"]} | chance
  report = class_report(known[known >= 0], guess[known >= 0], names)
  return _result(run, examples, "vqa", "answers", found, classes=len(names), priors=priors, report=report)


def written(run: Any, examples: Examples) -> Result:
  """What the decoder writes, and where it puts the true answer among all answers (if those are few)."""
  names = run.tokenizer.answers
  write = WriteAnswers.of(run)
  ranks, said = [], []
  for batch, (ids, scores) in over_batches(run, write, batches(run, examples), ("image", "text"), ("answer",)):
    said += [run.tokenizer.decode(row) for row in until_end(ids, run.tokenizer.eos_id)]
    ranks.append(answer_ranks(scores, batch["answer"]))
  metrics, chance = ranking(np.concatenate(ranks), len(names)) if write.candidates else ({}, {})
  priors = _priors(run, examples)
  found = {"vqa_accuracy": _accuracy(said, examples)} | metrics, {"vqa_accuracy": priors["question_prior"]} | chance
  return _result(run, examples, "vqa_written", "written answers", found, classes=len(names), priors=priors)


def located(run: Any, examples: Examples) -> Result:
  """The pixels that a question is about."""
  found, everything, nothing = [], [], []
  for batch, logits in over_batches(run, relevance_logits, batches(run, examples), ("image", "text"), ("relevance",)):
    found.append(overlaps(logits, batch["relevance"]))
    constants = constant_overlaps(batch["relevance"])
    everything.append(constants[0])
    nothing.append(constants[1])
  scores = mean_overlap(*(np.concatenate(parts) for parts in (found, everything, nothing)))
  return _result(run, examples, "relevance", "relevant pixels", scores)


def answer_logits(model: Any, batch: Any) -> Float[Array, "batch answers"]:
  """What the classifier says."""
  return model.answer_logits(joint(_fused(model, batch)))


def relevance_logits(model: Any, batch: Any) -> Float[Array, "batch height width"]:
  """What the mask head says."""
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
  def of(cls, run: Any) -> "WriteAnswers":
    """As a run's tokenizer has them; no candidates where there are more than MOST_CANDIDATES."""
    tokenizer = run.tokenizer
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
  return model.fuse(encoded["image"], encoded["text"])


def _accuracy(said: list[str], examples: Examples) -> float:
  return vqa_accuracy(said, [record["answers"] for record in examples.records])


def _priors(run: Any, examples: Examples) -> dict[str, float]:
  """What answering without a look scores: the commonest training answer of all, and of each question."""
  return _prior(run.experiment.data, tuple((r["question"], tuple(r["answers"])) for r in examples.records))


@functools.lru_cache(maxsize=2)
def _prior(data: Any, asked: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, float]:
  questions, answers = [question for question, _ in asked], [answer for _, answer in asked]
  return prior_accuracy(questions, answers, training_questions(data))


def _result(run: Any, examples: Examples, task: str, title: str, found: Any, **more: Any) -> Result:
  name = examples.name if task == "vqa" else f"{examples.name}_{task.removeprefix('vqa_')}"
  return Task(run).result(name, task, f"{examples.title}: {title}", examples, found, **more)
