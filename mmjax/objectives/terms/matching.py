"""Image-text matching term."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from mmjax.models.protocols import Compares, Encodes, Fuses, Matches
from mmjax.objectives.losses.matching import MATCHING_CHANCE, Negatives, hard_negatives, matching_loss
from mmjax.objectives.terms.base import ExampleTerm, Forward, Scores, joint
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class Matching(ExampleTerm):
  """Image-text matching: a pair, and two wrong pairs made from it (Li et al. 2021, ALBEF, eq. 4)."""

  group: int = 16
  """Number of consecutive rows that are negatives of each other. They are in one microbatch on one device."""
  hard: bool = True
  """Sample negatives from softmax(similarity). False: uniformly."""
  mask_same_concept: bool = True
  """Exclude negatives with the same meaning (equal batch["concept"])."""

  @property
  def name(self) -> str:
    return "matching"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image", "text", "concept")

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Fuses, Matches, *(Compares,) * self.hard)

  @property
  def together(self) -> int:
    return self.group

  def over_rows(self, forward: Forward, taught: Any) -> Scores:
    model, encoded = forward.model, forward.encoded
    negatives = self._negatives(forward)
    images = _concatenated(_rows(encoded["image"], negatives.image), encoded["image"])
    texts = _concatenated(encoded["text"], _rows(encoded["text"], negatives.text))
    keys = [forward.keys(f"{self.name} {side}") for side in ("image", "text")]
    rng = None if forward.rng is None else jnp.concatenate(keys)
    positive = model.match_logits(joint(forward.fused))
    wrong = model.match_logits(joint(model.fuse(images, texts, rng=rng))).reshape(2, -1, 2)
    weights = jnp.broadcast_to(negatives.weight, wrong.shape[:2])
    right = jnp.concatenate([positive[None, :, 1] > positive[None, :, 0], wrong[..., 0] > wrong[..., 1]])
    return {
      "loss": matching_loss(positive, wrong, negative_weight=weights),
      "accuracy": (right.astype(jnp.float32).mean(0), negatives.weight),
    }

  def chance(self, batch_size: int, model: Any) -> float | None:
    return MATCHING_CHANCE

  def _negatives(self, forward: Forward) -> Negatives:
    if self.hard:
      embeddings = forward.model.project({name: forward.encoded[name] for name in ("image", "text")})
      image, text, scale = embeddings["image"], embeddings["text"], forward.model.logit_scale()
    else:
      image = text = jnp.zeros((len(forward.batch["concept"]), 1), jnp.float32)
      scale = jnp.zeros(())
    concept = forward.batch["concept"] if self.mask_same_concept else None
    return hard_negatives(image, text, forward.keys(self.name), logit_scale=scale, group=self.group, concept=concept)


def _concatenated(one: Encoded, two: Encoded) -> Encoded:
  return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), one, two)


def _rows(encoded: Encoded, rows: Int[Array, "batch"]) -> Encoded:
  return jax.tree.map(lambda leaf: leaf[rows], encoded)
