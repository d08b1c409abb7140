"""Distillation term: the similarities of a frozen teacher are the target."""

import dataclasses
from typing import Any

from jax import Array
from jaxtyping import Float

from mmjax.objectives.losses.distillation import distillation_loss
from mmjax.objectives.terms.base import BatchTerm, Whole
from mmjax.objectives.terms.sharded import over_shards


@dataclasses.dataclass(frozen=True)
class Distillation(BatchTerm):
  """Cross-entropy from a teacher's softmax over the batch to the student's (Wu et al. 2023, TinyCLIP).

  The embeddings of the teacher may have another dimension. The teacher reads the same batch, so it must have the same
  image size and the same tokenizer.
  """

  of: str = ""
  """Frozen teacher: the workdir of a run, or published weights that mmjax.interop.load reads."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if not self.of:
      raise ValueError("distillation needs a teacher: set `of` to the workdir of a run, or to published weights")

  @property
  def name(self) -> str:
    return f"distillation_{'_'.join(self.between)}"

  @property
  def needs(self) -> tuple[str, ...]:
    return self.between

  @property
  def teacher(self) -> str:
    return self.of

  def over_batch(self, whole: Whole) -> tuple[Float[Array, ""], None]:
    def local(rows: Any, columns: Any, their_rows: Any, their_columns: Any, scale: Array, their_scale: Array) -> Any:
      scales: Any = dict(logit_scale=scale, teacher_scale=their_scale)
      return distillation_loss(rows, columns, their_rows, their_columns, **scales, axis_name=whole.axes)

    rows = [embeddings[name] for embeddings in (whole.embeddings, whole.taught) for name in self.between]
    return over_shards(local, whole, rows, (whole.logit_scale, whole.taught_scale)), None
