"""Terms that ask: what is the answer to this question about this picture?"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import optax

from mmjax.nn.stochastic import Rngs
from mmjax.objectives.term import Forward, PerExample, Scores, joint


@dataclasses.dataclass(frozen=True)
class Answer(PerExample):
  """Cross-entropy of the answer's class, from what picture and question say together (Antol et al. 2015)."""

  @property
  def name(self) -> str:
    return "answer"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image", "text", "answer")

  def __call__(self, forward: Forward, rng: Rngs, taught: Any) -> Scores:
    """Needs model.fuse and model.answer_logits; an answer of -1 is not among the classes, and counts as wrong."""
    logits = forward.model.answer_logits(joint(forward.fused)).astype(jnp.float32)
    answer = forward.batch["answer"]
    known = (answer >= 0).astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(answer, 0))
    right = (jnp.argmax(logits, axis=-1) == answer).astype(jnp.float32)
    return {"loss": (losses, known), "accuracy": (right, jnp.ones_like(right))}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(model.num_answers)
