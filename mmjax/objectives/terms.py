"""The weighted terms of a run's loss, as its configuration lists them."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from jax import Array
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Float

import jax

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

    def local(rows, columns, scale, bias):
      if self.loss == "softmax":
        return clip_loss(rows, columns, logit_scale=scale, axis_name=batch_axes)
      return siglip_loss(rows, columns, logit_scale=scale, logit_bias=bias, axis_name=batch_axes)

    sharded, whole = PartitionSpec(batch_axes), PartitionSpec()
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(sharded, sharded, whole, whole), out_specs=whole)
    return mapped(rows, columns, logit_scale, logit_bias)

  @property
  def name(self) -> str:
    return f"{self.loss}_{'_'.join(self.between)}"


# The terms a configuration may list.
Objective = Contrastive
