"""Terms about pairs that go beyond a similarity: matching, and contrast with a momentum encoder and its queue."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float, Int

from mmjax.objectives.balance import piecewise_linear
from mmjax.objectives.matching import MATCHING_CHANCE, Negatives, hard_negatives, matching_loss
from mmjax.objectives.momentum import Queue, enqueue
from mmjax.objectives.momentum_contrast import momentum_contrast_loss
from mmjax.objectives.term import ExampleTerm, Forward, Scores, Term, joint
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class Matching(ExampleTerm):
  """Do picture and text belong together? The pair, and two wrong pairs made of it (Li et al. 2021, ALBEF, eq. 4).

  Asks the model for fuse and match_logits and, for hard negatives, project and logit_scale.
  """

  group: int = 16
  """Consecutive rows that are each other's negatives; they go through the network together on one device."""
  hard: bool = True
  """Draw negatives from softmax(similarity); otherwise uniformly."""
  mask_same_concept: bool = True
  """No negatives that mean the same (equal batch["concept"])."""

  @property
  def name(self) -> str:
    return "matching"

  @property
  def needs(self) -> tuple[str, ...]:
    return ("image", "text", "concept")

  @property
  def together(self) -> int:
    return self.group

  def __call__(self, forward: Forward, taught: Any) -> Scores:
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


@dataclasses.dataclass(frozen=True)
class MomentumContrastive(Term):
  """Contrast with what the moving average says of this batch and said of earlier ones (ALBEF, eq. 2 and 6).

  Asks the model for project and logit_scale.
  """

  between: tuple[str, str] = ("image", "text")
  """The two embeddings that are compared."""
  queue_size: int = 65_536
  """How many embeddings of earlier batches each side is compared with as well."""
  alpha: tuple[tuple[int, float], ...] = ((0, 0.4),)
  """(step, share) points: the moving average's similarities are that share of the target (ALBEF: to .4 in an epoch)."""
  mask_same_concept: bool = False
  """Leave out the columns that mean the same (equal batch["concept"])."""

  @property
  def name(self) -> str:
    return f"momentum_{'_'.join(self.between)}"

  @property
  def needs(self) -> tuple[str, ...]:
    return (*self.between, "concept")

  @property
  def teacher(self) -> bool:
    return True

  def memory(self, embed_dim: int) -> tuple[Queue, Queue]:
    """The empty queues before the first step, one per side."""
    return Queue.empty(self.queue_size, embed_dim), Queue.empty(self.queue_size, embed_dim)

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(batch_size + self.queue_size)

  def __call__(
    self,
    embeddings: Mapping[str, Float[Array, "batch dim"]],
    taught: Mapping[str, Float[Array, "batch dim"]],
    memory: tuple[Queue, Queue],
    batch: Batch,
    *,
    step: Int[Array, ""],
    logit_scale: Float[Array, ""],
    mesh: Mesh,
    batch_axes: tuple[str, ...],
  ) -> tuple[Float[Array, ""], tuple[Queue, Queue]]:
    """(the unweighted loss over the global batch, the queues with this batch in them).

    Args:
      embeddings, taught: unit-norm float32 embeddings of the model, and of its moving average, sharded over
        `batch_axes` of `mesh`.
      memory: the queues of the moving average's earlier embeddings.
      batch: what the embeddings were made from.
      step: optimiser steps taken.
      logit_scale: similarities are multiplied by it.
      mesh, batch_axes: where the arrays lie.
    """
    one, two = self.between

    def local(rows: Any, concepts: Array, queues: Any, scale: Array, alpha: Array) -> Array:
      ids = concepts if self.mask_same_concept else None
      common: Any = dict(logit_scale=scale, alpha=alpha, queues=queues, ids=ids, axis_name=batch_axes)
      return momentum_contrast_loss(*rows, **common)

    sharded, whole = PartitionSpec(batch_axes), PartitionSpec()
    specs = (sharded, sharded, whole, whole, whole)
    rows = (embeddings[one], embeddings[two], taught[one], taught[two])
    alpha = piecewise_linear(step, self.alpha)
    mapped = jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=whole)
    queues = enqueue(memory[0], taught[one], batch["concept"]), enqueue(memory[1], taught[two], batch["concept"])
    return mapped(rows, batch["concept"], memory, logit_scale, alpha), queues


def _concatenated(one: Encoded, two: Encoded) -> Encoded:
  return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), one, two)


def _rows(encoded: Encoded, rows: Int[Array, "batch"]) -> Encoded:
  return jax.tree.map(lambda leaf: leaf[rows], encoded)
