"""Contrastive loss term, with any pairwise loss."""

import dataclasses
from typing import Any, Literal

from jax import Array
from jaxtyping import Float

from mmjax.objectives.terms.base import BatchTerm, Whole
from mmjax.objectives.terms.pair_losses import PairLoss, Softmax
from mmjax.objectives.terms.sharded import over_shards


@dataclasses.dataclass(frozen=True)
class Contrastive(BatchTerm):
  """A contrastive loss between two embeddings of every example in the global batch."""

  loss: PairLoss = Softmax()
  """Loss over all pairs, with its settings (`--objectives.0.loss hinge --objectives.0.loss.margin 0.1`)."""
  mask_same_concept: bool = False
  """Exclude negatives with the same meaning (equal batch["concept"]), such as duplicates."""
  labels: Literal["concept", "group"] = "concept"
  """Labels for unicl and supcon, where examples with equal labels are positives: the meaning (batch["concept"]) or the
  class (batch["group"], which emoji have). Labels that are equal only for equal texts make no difference."""
  tile_size: int | None = None
  """Largest number of rows and columns of the similarity matrix in memory at once. None: chosen for the backend."""

  def over_batch(self, whole: Whole) -> tuple[Float[Array, ""], None]:
    def local(rows: Any, columns: Any, concepts: Any, labels: Any, scale: Any, bias: Any) -> Any:
      ids = concepts if self.mask_same_concept else None
      pairs: Any = dict(logit_scale=scale, logit_bias=bias, axis_name=whole.axes, tile_size=self.tile_size)
      return self.loss(rows, columns, ids=ids, labels=labels, **pairs)

    rows = (*(whole.embeddings[name] for name in self.between), whole.batch["concept"], whole.batch[self.labels])
    return over_shards(local, whole, rows, (whole.logit_scale, whole.logit_bias)), None

  def chance(self, batch_size: int, model: Any = None) -> float | None:
    return self.loss.chance(batch_size)

  @property
  def spares_duplicates(self) -> bool:
    return self.mask_same_concept or self.loss.labelled

  @property
  def name(self) -> str:
    return f"{self.loss.name}_{'_'.join(self.between)}"

  @property
  def needs(self) -> tuple[str, ...]:
    return (*self.between, *sorted({"concept", self.labels}))

  @property
  def needs_bias(self) -> bool:
    return self.loss.needs_bias
