"""Loss terms for visual question answering: the answer as a class or as text, and the relevant pixels."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float

from mmjax.errors import ConfigError
from mmjax.models.protocols import Answers, AnswersByModality, Encodes, Fuses, Grounds, Writes
from mmjax.objectives.losses.answering import (
  answer_class_loss,
  answer_log_likelihood,
  answer_ranking_loss,
  answer_score_loss,
)
from mmjax.objectives.losses.captioning import caption_loss
from mmjax.objectives.losses.per_example import ExampleLosses, correct, weighted
from mmjax.objectives.losses.relevance import relevance_loss
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores, joint


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionTerm(ExampleTerm):
  """Base class of terms about a question. Questions may have different weights."""

  weights: str = ""
  """Name of the array in the batch with the weight of every question, such as that of a column `Weight`. Empty: all
  questions have weight 1."""

  target: ClassVar[str]
  """Name of the array in the batch with the truth."""

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image", "text", self.target) + ((self.weights,) if self.weights else ())

  def question_weights(self, forward: Forward) -> Float[Array, "batch"] | None:
    """Weights of the questions. None if all are 1."""
    return forward.batch[self.weights] if self.weights else None


@dataclasses.dataclass(frozen=True)
class Answer(QuestionTerm):
  """Visual question answering as classification, from the fused image and question (Antol et al. 2015).

  An answer that is not in the vocabulary of answers (-1) has no loss and counts as wrong.
  """

  target = "answer"

  @property
  def name(self) -> str:
    return "answer"

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Fuses, Answers)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    logits, answer = forward.model.answer_logits(joint(forward.fused)), forward.batch["answer"]
    loss = answer_class_loss(logits, answer, self.question_weights(forward))
    return {"loss": loss, "accuracy": correct(logits, answer)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(model.num_answers)


@dataclasses.dataclass(frozen=True)
class ModalityAnswer(QuestionTerm):
  """Answer from each modality alone, by its own classifier of a late fusion (Nagrani et al. 2021, section 3.4).

  The loss is the sum over the modalities, which are logged as well. A classifier, and the encoder below it, learns from
  its own loss only. List `Answer` beside this term to train the average of the classifiers too, and one term per
  modality to weight them differently. An example without a modality has no loss for it.
  """

  modality: Literal["each", "image", "text"] = "each"
  """The modality. each: all of them."""

  target = "answer"

  @property
  def name(self) -> str:
    return f"answer_{self.modality}_alone"

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Fuses, Answers, AnswersByModality)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    found = forward.model.modality_logits(forward.fused)
    if self.modality != "each":
      loss, accuracy = self._alone(forward, *found[self.modality])
      return {"loss": loss, "accuracy": accuracy}
    scores: dict[str, Any] = {}
    for name, (logits, present) in found.items():
      scores[name], scores[f"{name}_accuracy"] = self._alone(forward, logits, present)
    known = (forward.batch["answer"] >= 0).astype(jnp.float32)
    total = jnp.stack([scores[name].losses for name in found]).sum(0)  # 0 for an absent modality
    return {"loss": weighted(ExampleLosses(total, known), self.question_weights(forward)), **scores}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return None if self.modality == "each" else math.log(model.num_answers)

  def _alone(
    self, forward: Forward, logits: Float[Array, "batch answers"], present: Bool[Array, "batch"]
  ) -> tuple[ExampleLosses, ExampleLosses]:
    """(loss, accuracy) of one classifier."""
    answer = forward.batch["answer"]
    loss = answer_class_loss(logits, jnp.where(present, answer, -1), self.question_weights(forward))
    return loss, correct(logits, answer)


@dataclasses.dataclass(frozen=True)
class AnswerScores(QuestionTerm):
  """Visual question answering as regression of the soft score of every answer, with a binary cross-entropy summed over
  answers (Teney et al. 2018, section 3.6; ViLBERT, ViLT).

  A column `Answer(scores=True)` makes the scores. `accuracy` is the score of the answer that the model prefers.
  """

  target = "answer_scores"

  @property
  def name(self) -> str:
    return "answer_scores"

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Fuses, Answers)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    logits, scores = forward.model.answer_logits(joint(forward.fused)), forward.batch["answer_scores"]
    if logits.shape != scores.shape:
      raise ConfigError(
        f"the model has {logits.shape[1]} answers, and the data {scores.shape[1]}: set --model.num-answers to "
        f"{scores.shape[1]}"
      )
    preferred = jnp.take_along_axis(scores, jnp.argmax(logits, axis=-1)[:, None], axis=1)[:, 0]
    loss = answer_score_loss(logits, scores, self.question_weights(forward))
    return {"loss": loss, "accuracy": (preferred, jnp.ones_like(preferred))}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return model.num_answers * math.log(2)


@dataclasses.dataclass(frozen=True)
class AnswerText(QuestionTerm):
  """Visual question answering as text generation, by a decoder that reads image and question (Li et al. 2022, BLIP,
  section 4.3)."""

  target = "answer_text"

  @property
  def name(self) -> str:
    return "answer_text"

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Fuses, Writes)

  @property
  def special_tokens(self) -> tuple[str, ...]:
    return ("begin",)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    ids = forward.batch["answer_text"]
    logits = forward.model.decode(ids, forward.fused["text"], rng=forward.rng)
    loss = caption_loss(logits, ids, pad_id=forward.model.config.text.pad_id)
    return {"loss": weighted(loss, self.question_weights(forward))}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(model.text.vocab_size)


@dataclasses.dataclass(frozen=True)
class AnswerRanking(QuestionTerm):
  """Visual question answering as ranking: cross-entropy over the likelihoods of candidate answers, by a decoder that
  reads image and question (ALBEF and BLIP rank candidates so in evaluation).

  A column `Answer(candidates=k)` makes the candidates. The first one is the answer.
  """

  target = "answer_candidates"

  @property
  def name(self) -> str:
    return "answer_ranking"

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Fuses, Writes)

  @property
  def special_tokens(self) -> tuple[str, ...]:
    return ("begin",)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    ids, pad_id = forward.batch["answer_candidates"], forward.model.config.text.pad_id
    number = ids.shape[1]
    context, rng = jax.tree.map(lambda leaf: jnp.repeat(leaf, number, axis=0), (forward.fused["text"], forward.rng))
    logits = forward.model.decode(rearrange(ids, "b k t -> (b k) t"), context, rng=rng)
    said = answer_log_likelihood(rearrange(logits, "(b k) t v -> b k t v", k=number), ids, pad_id=pad_id)
    present = (ids != pad_id).any(2)  # a row of padding is no candidate; -inf everywhere would be NaN
    said, answer = jnp.where(present, said, -1e30), jnp.where(present[:, 0], 0, -1)
    loss = answer_ranking_loss(said, answer, self.question_weights(forward))
    return {"loss": loss, "accuracy": correct(said, answer)}


@dataclasses.dataclass(frozen=True)
class Relevance(QuestionTerm):
  """Segmentation of the pixels that are relevant to the question."""

  kind: Literal["bce", "squared", "absolute"] = "bce"
  """Loss per pixel. Squared and absolute error are for comparison: they fail if few pixels are relevant."""

  target = "relevance"

  @property
  def name(self) -> str:
    return "relevance"

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Fuses, Grounds)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    logits = forward.model.relevance_logits(forward.fused["image"].tokens)
    loss = relevance_loss(logits, forward.batch["relevance"], kind=self.kind)
    return {"loss": weighted(loss, self.question_weights(forward))}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return {"bce": math.log(2), "squared": 0.25, "absolute": 0.5}[self.kind]
