"""Contrastive term with a momentum encoder and a queue of its embeddings."""

import dataclasses
import math
from typing import Any

from jax import Array
from jaxtyping import Float

from mmjax.objectives.losses.balance import piecewise_linear
from mmjax.objectives.losses.momentum import Queue, enqueue
from mmjax.objectives.losses.momentum_contrast import momentum_contrast_loss
from mmjax.objectives.terms.base import AVERAGE, BatchTerm, Whole
from mmjax.objectives.terms.sharded import over_shards


@dataclasses.dataclass(frozen=True)
class MomentumContrastive(BatchTerm):
  """Contrastive loss with embeddings of the moving average, of this batch and of earlier ones (ALBEF, eq. 2 and 6)."""

  queue_size: int = 65_536
  """Number of embeddings of earlier batches in the queue of each side."""
  alpha: tuple[tuple[int, float], ...] = ((0, 0.4),)
  """(step, share) points. The similarities of the moving average are this share of the target (ALBEF: 0 to .4 in one
  epoch)."""
  mask_same_concept: bool = False
  """Exclude negatives with the same meaning (equal batch["concept"])."""

  @property
  def name(self) -> str:
    return f"momentum_{'_'.join(self.between)}"

  @property
  def needs(self) -> tuple[str, ...]:
    return (*self.between, "concept")

  @property
  def teacher(self) -> str:
    return AVERAGE

  def memory(self, embed_dim: int) -> tuple[Queue, Queue]:
    """Make two empty queues, one per side."""
    return Queue.empty(self.queue_size, embed_dim), Queue.empty(self.queue_size, embed_dim)

  def chance(self, batch_size: int, model: Any) -> float | None:
    return math.log(batch_size + self.queue_size)

  def over_batch(self, whole: Whole) -> tuple[Float[Array, ""], tuple[Queue, Queue]]:
    one, two = self.between
    concept = whole.batch["concept"]

    def local(rows: Any, concepts: Array, queues: Any, scale: Array, alpha: Array) -> Array:
      ids = concepts if self.mask_same_concept else None
      common: Any = dict(logit_scale=scale, alpha=alpha, queues=queues, ids=ids, axis_name=whole.axes)
      return momentum_contrast_loss(*rows, **common)

    rows = (whole.embeddings[one], whole.embeddings[two], whole.taught[one], whole.taught[two])
    shared = (whole.memory, whole.logit_scale, piecewise_linear(whole.step, self.alpha))
    loss = over_shards(local, whole, (rows, concept), shared)
    queues = zip(whole.memory, self.between, strict=True)
    first, second = (enqueue(queue, whole.taught[name], concept) for queue, name in queues)
    return loss, (first, second)
