"""Loss terms for visual question answering: the answer as a class or as text, and the relevant pixels."""

import dataclasses
import math
from typing import Any, Literal

import jax.numpy as jnp

from mmjax.models.protocols import Answers, Encodes, Fuses, Grounds, Writes
from mmjax.objectives.losses.answering import answer_class_loss
from mmjax.objectives.losses.captioning import caption_loss
from mmjax.objectives.losses.relevance import relevance_loss
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores, joint


@dataclasses.dataclass(frozen=True)
class Answer(ExampleTerm):
  """Visual question answering as classification, from the fused image and question (Antol et al. 2015).

  An answer that is not in the vocabulary of answers (-1) has no loss and counts as wrong.
  """

  @property
  def name(self) -> str:
    return "answer"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image", "text", "answer")

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Fuses, Answers)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    logits, answer = forward.model.answer_logits(joint(forward.fused)), forward.batch["answer"]
    right = (jnp.argmax(logits, axis=-1) == answer).astype(jnp.float32)
    return {"loss": answer_class_loss(logits, answer), "accuracy": (right, jnp.ones_like(right))}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(model.num_answers)


@dataclasses.dataclass(frozen=True)
class AnswerText(ExampleTerm):
  """Visual question answering as text generation, by a decoder that reads image and question (Li et al. 2022, BLIP,
  section 4.3)."""

  @property
  def name(self) -> str:
    return "answer_text"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image", "text", "answer_text")

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Fuses, Writes)

  @property
  def special_tokens(self) -> tuple[str, ...]:
    return ("begin",)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    ids = forward.batch["answer_text"]
    logits = forward.model.decode(ids, forward.fused["text"], rng=forward.rng)
    return {"loss": caption_loss(logits, ids, pad_id=forward.model.config.text.pad_id)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(model.text.vocab_size)


@dataclasses.dataclass(frozen=True)
class Relevance(ExampleTerm):
  """Segmentation of the pixels that are relevant to the question."""

  kind: Literal["bce", "squared", "absolute"] = "bce"
  """Loss per pixel. Squared and absolute error are for comparison: they fail if few pixels are relevant."""

  @property
  def name(self) -> str:
    return "relevance"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image", "text", "relevance")

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Fuses, Grounds)

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    logits = forward.model.relevance_logits(forward.fused["image"].tokens)
    return {"loss": relevance_loss(logits, forward.batch["relevance"], kind=self.kind)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return {"bce": math.log(2), "squared": 0.25, "absolute": 0.5}[self.kind]
