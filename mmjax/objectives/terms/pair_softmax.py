"""Contrastive term over scores that a model computes from both items of a pair."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
from einops import rearrange
from jax.scipy.special import logsumexp

from mmjax.models.protocols import Encodes, ScoresPairs
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores


@dataclasses.dataclass(frozen=True)
class PairSoftmax(ExampleTerm):
  """Symmetric softmax over the scores of all pairs of a group of rows (CLIP4Clip, Luo et al. 2022, equations 6 to 8).

  The score of a pair is no product of two embeddings: the model reads both items together (tightTransf). A group of g
  rows costs g^2 passes, of which g are in memory at a time.
  """

  between: tuple[str, str] = ("video", "text")
  """Names of the two arrays that are compared."""
  group: int = 16
  """Number of consecutive rows that are negatives of each other. They are in one microbatch on one device."""
  mask_same_concept: bool = True
  """Exclude negatives with the same meaning (equal batch["concept"])."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.group < 2:
      raise ValueError(f"group={self.group} must be at least 2: rows of a group are negatives of each other")

  @property
  def name(self) -> str:
    return "pair_softmax"

  @property
  def needs(self) -> tuple[str, ...]:
    return (*self.between, "concept")

  @property
  def reads(self) -> tuple[str, ...]:
    return self.between

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, ScoresPairs)

  @property
  def together(self) -> int:
    return self.group

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    encoded, concept, size = forward.encoded, forward.batch["concept"], self.group
    texts = rearrange(encoded[self.between[1]].pooled, "(n g) d -> n g d", g=size)
    scores = forward.model.pair_scores(encoded, jnp.repeat(texts, size, axis=0)).astype(jnp.float32)
    logits = rearrange(scores, "(n g) h -> n g h", g=size)
    own = jnp.eye(size, dtype=jnp.bool_)[None]
    if self.mask_same_concept:
      numbers = rearrange(concept, "(n g) -> n g", g=size)
      logits = jnp.where((numbers[:, :, None] != numbers[:, None]) | own, logits, -jnp.inf)
    right = jnp.diagonal(logits, axis1=1, axis2=2)
    loss = (logsumexp(logits, axis=2) + logsumexp(logits, axis=1)) / 2 - right
    best = (right >= logits.max(2)).astype(jnp.float32)
    weights = jnp.ones(len(concept), jnp.float32)
    return {"loss": (loss.reshape(-1), weights), "accuracy": (best.reshape(-1), weights)}

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(self.group)
