"""Distillation terms: the similarities of a frozen teacher, or its embeddings, are the target."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from mmjax.objectives.losses.distillation import distillation_loss, feature_distillation_loss
from mmjax.objectives.terms.base import BatchTerm, Whole
from mmjax.objectives.terms.sharded import over_shards


@dataclasses.dataclass(frozen=True)
class FromTeacher(BatchTerm):
  """Base class of terms that learn from a frozen teacher's embeddings.

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
  def needs(self) -> tuple[str, ...]:
    return self.between

  @property
  def teacher(self) -> str:
    return self.of


@dataclasses.dataclass(frozen=True)
class Distillation(FromTeacher):
  """Cross-entropy from a teacher's softmax over the batch to the student's (Wu et al. 2023, TinyCLIP).

  The teacher is as for `FromTeacher`.
  """

  @property
  def name(self) -> str:
    return f"distillation_{'_'.join(self.between)}"

  def over_batch(self, whole: Whole) -> tuple[Float[Array, ""], None]:
    def local(rows: Any, columns: Any, their_rows: Any, their_columns: Any, scale: Array, their_scale: Array) -> Any:
      scales: Any = dict(logit_scale=scale, teacher_scale=their_scale)
      return distillation_loss(rows, columns, their_rows, their_columns, **scales, axis_name=whole.axes)

    rows = [embeddings[name] for embeddings in (whole.embeddings, whole.taught) for name in self.between]
    return over_shards(local, whole, rows, (whole.logit_scale, whole.taught_scale)), None


@dataclasses.dataclass(frozen=True)
class FeatureDistillation(FromTeacher):
  """Distance of the embeddings to those of a frozen teacher (Yang et al. 2024, CLIP-KD).

  The teacher is as for `FromTeacher`. The loss is the mean of those of the two arrays in `between`, which share the
  projection. It is 1 at the beginning (distance "cosine"), and 0 if all embeddings are those of the teacher.
  """

  distance: Literal["cosine", "l2"] = "cosine"
  """One minus the cosine, or the squared Euclidean distance."""
  project_to: int = 0
  """Learn a linear map of the embeddings to this width, that of the teacher's embeddings. The trained model does not
  have it. 0: no map; the widths are equal."""

  @property
  def name(self) -> str:
    return f"features_{'_'.join(self.between)}"

  def parameters(self, key: Key[Array, ""], embed_dim: int) -> Any:
    if not self.project_to:
      return None
    return jax.random.normal(key, (embed_dim, self.project_to)) * embed_dim**-0.5

  def over_batch(self, whole: Whole) -> tuple[Float[Array, ""], None]:
    settings: Any = dict(projection=whole.own, distance=self.distance)
    pairs = [(whole.embeddings[name], whole.taught[name]) for name in self.between]
    losses = [feature_distillation_loss(mine, theirs, **settings) for mine, theirs in pairs]
    return jnp.stack(losses).mean(), None
