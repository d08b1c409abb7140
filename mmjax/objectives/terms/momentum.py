"""Contrast with a momentum encoder and a queue of what it said."""

import dataclasses
import math
from typing import Any

from jax import Array
from jaxtyping import Float

from mmjax.models.protocols import Compares, Encodes
from mmjax.objectives.balance import piecewise_linear
from mmjax.objectives.momentum import Queue, enqueue
from mmjax.objectives.momentum_contrast import momentum_contrast_loss
from mmjax.objectives.terms.base import AVERAGE, BatchTerm, Whole
from mmjax.objectives.terms.sharded import over_shards


@dataclasses.dataclass(frozen=True)
class MomentumContrastive(BatchTerm):
  """Contrast with the moving average's embeddings of this batch and of earlier ones (ALBEF, eq. 2 and 6)."""

  between: tuple[str, str] = ("image", "text")
  """The two embeddings that are compared."""
  queue_size: int = 65_536
  """Number of embeddings of earlier batches that each side is compared with as well."""
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
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Compares)

  @property
  def teacher(self) -> str:
    return AVERAGE

  def memory(self, embed_dim: int) -> tuple[Queue, Queue]:
    """Two empty queues, one per side."""
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
