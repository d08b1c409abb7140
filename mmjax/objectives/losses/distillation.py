"""Distillation of contrastive models: the teacher's softmax over the batch is the target."""

import jax
from jax import Array
from jaxtyping import Float

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
