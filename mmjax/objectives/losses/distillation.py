"""Distillation of models that embed: the targets are the teacher's softmax over the batch, or its embeddings."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.nn.norm import normalize
from mmjax.objectives.losses.inputs import Features, Scalar, TileSize, image_text, positive
from mmjax.objectives.pairwise.engine import Pairwise, pairwise_loss
from mmjax.objectives.pairwise.similarity import similarity
from mmjax.parallel.ring import AxisName


def _distill_tile(row: Features, col: Features) -> dict[str, object]:
  teacher = jax.lax.stop_gradient(similarity(row["teacher"], col["teacher"], row["teacher_scale"]))
  logits = similarity(row["x"], col["y"], row["scale"])
  return {"logits": logits, "soft": (teacher, logits)}


def _distill(stats: Features, row: Features, col: Features) -> Array:
  return sum(lse - soft for lse, soft in zip(stats["logits"], stats["soft"], strict=True)) / 2


DISTILL = Pairwise(_distill_tile, {"logits": ("both", "lse"), "soft": ("both", "softmean")}, _distill)


def distillation_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  teacher_image: Float[Array, "batch teacher_dim"],
  teacher_text: Float[Array, "batch teacher_dim"],
  *,
  logit_scale: Scalar,
  teacher_scale: Scalar,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
  method: str = "ring",
) -> Float[Array, ""]:
  """Cross-entropy from a teacher's softmax over the batch to the student's.

  This is the affinity mimicking of TinyCLIP (Wu et al. 2023). The other arguments are those of `clip_loss`.

  Args:
    image: unit-norm image embeddings of the student.
    text: unit-norm text embeddings of the student.
    teacher_image: unit-norm image embeddings of the teacher. Their width may differ, and they get no gradient.
    teacher_text: unit-norm text embeddings of the teacher, likewise.
    logit_scale: multiplies the student's similarities.
    teacher_scale: multiplies the teacher's similarities.
  Returns: the mean over the global batch and both directions, in nats. It is at least the teacher's entropy.
  Raises:
    ValueError: as for `clip_loss`, or a concrete teacher_scale is not positive.
  """
  rows, columns = image_text(image, text, logit_scale, weights)
  teachers, _ = image_text(teacher_image, teacher_text, teacher_scale)
  positive("teacher_scale", teacher_scale)
  rows |= {"teacher": teachers["x"], "teacher_scale": teachers["scale"]}
  columns |= {"teacher": teacher_text}
  return pairwise_loss(DISTILL, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)


def feature_distillation_loss(
  features: Float[Array, "batch dim"],
  teacher: Float[Array, "batch teacher_dim"],
  *,
  projection: Float[Array, "dim teacher_dim"] | None = None,
  distance: Literal["cosine", "l2"] = "cosine",
) -> Float[Array, ""]:
  """Distance of a student's embeddings to those of its teacher (CLIP-KD, Yang et al. 2024, section 3.3.2).

  Args:
    features: unit-norm embeddings of the student.
    teacher: unit-norm embeddings of the teacher. They get no gradient.
    projection: matrix to the width of the teacher. None: the widths are equal.
    distance: "cosine": one minus the cosine. "l2": the squared Euclidean distance; the projected rows are not
      normalised.
  Returns: the mean over the batch. 0 if the embeddings are equal.
  Raises: ValueError: the widths differ.
  """
  rows = features if projection is None else jnp.matmul(features, projection, precision=jax.lax.Precision.HIGHEST)
  if rows.shape != teacher.shape:
    raise ValueError(
      f"the student's embeddings have {rows.shape[-1]} dimensions, those of the teacher {teacher.shape[-1]}: set "
      f"--objectives.NUMBER.project-to {teacher.shape[-1]}"
    )
  target = jax.lax.stop_gradient(teacher)
  if distance == "l2":
    return jnp.square(rows - target).sum(-1).mean()
  return 1.0 - (normalize(rows) * target).sum(-1).mean()
