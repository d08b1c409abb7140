"""Contrast between two embeddings of every example, by any pairwise loss."""

import dataclasses
from typing import Any, Literal

from jax import Array
from jaxtyping import Float

from mmjax.models.protocols import Compares, Encodes
from mmjax.objectives.terms.base import BatchTerm, Whole
from mmjax.objectives.terms.pair_losses import PairLoss, Softmax
from mmjax.objectives.terms.sharded import over_shards


@dataclasses.dataclass(frozen=True)
class Contrastive(BatchTerm):
  """A contrastive loss between two embeddings of every example in the global batch."""

  loss: PairLoss = Softmax()
  """The loss over all pairs, with its own settings (`--objectives.0.loss hinge --objectives.0.loss.margin 0.1`)."""
  between: tuple[str, str] = ("image", "text")
  """The two embeddings that are compared, by name: image, text, or image2 (the second view of data.views=2)."""
  mask_same_concept: bool = False
  """Leave out the negatives that mean the same (equal batch["concept"]): duplicates, and variants of one thing."""
  labels: Literal["concept", "group"] = "concept"
  """What makes two examples positives of each other in unicl and supcon: that they mean the same, or that they are of
  one class (equal batch["group"], which emoji have). Classes whose texts are all the same would change nothing."""
  tile_size: int | None = None
  """Most rows and columns of the similarity matrix held at once; None: a good size for the backend."""

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
  def name(self) -> str:
    return f"{self.loss.name}_{'_'.join(self.between)}"

  @property
  def needs(self) -> tuple[str, ...]:
    return (*self.between, *sorted({"concept", self.labels}))

  @property
  def asks(self) -> tuple[type, ...]:
    return (Encodes, Compares)

  @property
  def needs_bias(self) -> bool:
    return self.loss.needs_bias
