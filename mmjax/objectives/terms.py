"""The weighted terms of a run's loss, as its configuration lists them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import jax
from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float

from mmjax.objectives.contrastive import clip_loss, siglip_loss
from mmjax.types import Batch


@dataclasses.dataclass(frozen=True)
class Contrastive:
  """A contrastive loss between two embeddings of every example in the global batch."""

  loss: Literal["softmax", "sigmoid"] = "softmax"
  """softmax: CLIP's symmetric InfoNCE; sigmoid: SigLIP's pairwise loss (needs model.init_logit_bias)."""
  between: tuple[str, str] = ("image", "text")
  """The two embeddings that are compared, by name: image, text, or image2 (the second view of data.views=2)."""
  weight: float = 1.0
  """What the loss is multiplied by in the sum over objectives."""
  mask_same_concept: bool = False
  """Leave out the negatives that mean the same (equal batch["concept"]): duplicates, and variants of one thing."""
  tile_size: int | None = None
  """Most rows and columns of the similarity matrix held at once; None: what is fast here."""

  def __call__(
    self,
    embeddings: Mapping[str, Float[Array, "batch dim"]],
    batch: Batch,
    *,
    logit_scale: Float[Array, ""],
    logit_bias: Float[Array, ""],
    mesh: Mesh,
    batch_axes: tuple[str, ...],
  ) -> Float[Array, ""]:
    """The unweighted loss over the global batch.

    Args:
      embeddings: unit-norm float32 embeddings by name, sharded over `batch_axes` of `mesh`.
      batch: what they were made from.
      logit_scale: similarities are multiplied by it.
      logit_bias: added to the logits (sigmoid).
      mesh: the mesh the arrays lie on.
      batch_axes: the mesh axes the batch is split over.
    """
    rows, columns = (embeddings[name] for name in self.between)
    concepts = batch["concept"] if self.mask_same_concept else None

    def local(rows, columns, concepts, scale, bias):
      common = dict(logit_scale=scale, axis_name=batch_axes, ids=concepts, tile_size=self.tile_size)
      if self.loss == "softmax":
        return clip_loss(rows, columns, **common)
      return siglip_loss(rows, columns, logit_bias=bias, **common)

    sharded, whole = PartitionSpec(batch_axes), PartitionSpec()
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(sharded, sharded, sharded, whole, whole), out_specs=whole)
    return mapped(rows, columns, concepts, logit_scale, logit_bias)

  def chance(self, batch_size: int) -> float:
    """The loss of a model that cannot tell pairs apart, in nats.

    softmax: ln(n). sigmoid: n times the entropy of 1/n, what the best constant logit gives; about ln(n) + 1.
    """
    softmax = math.log(batch_size)
    if self.loss == "softmax" or batch_size == 1:
      return softmax
    return softmax + (batch_size - 1) * math.log(batch_size / (batch_size - 1))

  @property
  def name(self) -> str:
    return f"{self.loss}_{'_'.join(self.between)}"


# The terms a configuration may list.
Objective = Contrastive
