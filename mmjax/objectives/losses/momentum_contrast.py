"""Contrastive loss against a momentum encoder's embeddings and its queue, with soft targets (ALBEF)."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.objectives.losses.momentum import Queue
from mmjax.objectives.pairwise.engine import batch_mean
from mmjax.parallel.ring import AxisName


def momentum_contrast_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  teacher_image: Float[Array, "batch dim"],
  teacher_text: Float[Array, "batch dim"],
  *,
  logit_scale: float | Float[Array, ""],
  alpha: float | Float[Array, ""],
  queues: tuple[Queue, Queue] | None = None,
  ids: Int[Array, "batch"] | None = None,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
) -> Float[Array, ""]:
  """Cross-entropy to alpha softmax(teacher's similarities) + (1 - alpha) one-hot, in both directions.

  Source: ALBEF (Li et al. 2021), eq. 2 and 6. The columns are the teacher's embeddings of the global batch and of the
  queue. The KL divergence of eq. 6 is this loss minus the teacher's entropy, which has no gradient. Rows are local, so
  memory is batch * (global batch + queue).

  Args:
    image: the student's unit-norm image embeddings of the local rows.
    text: the student's unit-norm text embeddings of the local rows.
    teacher_image: the momentum encoder's image embeddings of the same examples, which get no gradient.
    teacher_text: the momentum encoder's text embeddings of the same examples, which get no gradient.
    logit_scale: multiplies the student's and (without gradient) the teacher's similarities.
    alpha: weight of the teacher in the target. ALBEF increases it from 0 to 0.4 in the first epoch (piecewise_linear).
    queues: (image queue, text queue) before this batch is added, the same on every device.
    ids: columns with the id of a row that are not its own pair are left out, also those of the queue.
    weights: importance of each example in the mean. An example of weight 0 is absent.
    axis_name: mesh axis or axes of the batch, inside shard_map or pmap; None: the arrays are the whole batch.
  Returns: the mean over the global batch, in nats. log(columns) if all similarities are equal.
  """
  scale = jnp.asarray(logit_scale, jnp.float32)
  alpha = jnp.asarray(alpha, jnp.float32)
  image_queue, text_queue = queues if queues is not None else (None, None)
  total = jnp.zeros(image.shape[0], jnp.float32)
  for student, teacher, other, queue in (
    (image, teacher_image, teacher_text, text_queue),
    (text, teacher_text, teacher_image, image_queue),
  ):
    columns, own, hidden = _columns(jax.lax.stop_gradient(other), queue, ids, weights, axis_name)
    logits = scale * jnp.matmul(student.astype(jnp.float32), columns.T)
    says = jax.lax.stop_gradient(scale * jnp.matmul(teacher.astype(jnp.float32), columns.T))
    total = total + _soft_cross_entropy(logits, says, own, hidden, alpha) / 2
  return batch_mean(total, weights, axis_name=axis_name)


def _columns(
  teacher: Float[Array, "batch dim"],
  queue: Queue | None,
  ids: Int[Array, "batch"] | None,
  weights: Float[Array, "batch"] | None,
  axis_name: AxisName,
) -> tuple[Float[Array, "columns dim"], Bool[Array, "batch columns"], Bool[Array, "batch columns"]]:
  """Returns (embeddings of the global batch and the queue, True at each row's own column, True at columns left out)."""
  size = teacher.shape[0]
  concept = jnp.zeros(size, jnp.int32) if ids is None else ids.astype(jnp.int32)
  present = jnp.ones(size, bool) if weights is None else weights > 0
  columns = (teacher.astype(jnp.float32), concept, present)
  first = jnp.int32(0)
  if axis_name is not None:
    columns = jax.lax.all_gather(columns, axis_name, tiled=True)
    first = (jax.lax.axis_index(axis_name) * size).astype(jnp.int32)
  if queue is not None:
    columns = jax.tree.map(
      lambda a, b: jnp.concatenate([a, b]), columns, (queue.features, queue.concept, queue.present)
    )
  features, number, present = columns
  place = first + jnp.arange(size, dtype=jnp.int32)
  own = place[:, None] == jnp.arange(features.shape[0], dtype=jnp.int32)[None]
  hidden = ~present[None] if ids is None else ~present[None] | (concept[:, None] == number[None])
  return features, own, hidden & ~own


def _soft_cross_entropy(
  logits: Array, teacher: Array, own: Array, hidden: Array, alpha: Array
) -> Float[Array, "batch"]:
  """lse(logits) - sum of targets * logits, over the columns that are not hidden. A row's own column is never hidden."""
  targets = alpha * jax.nn.softmax(jnp.where(hidden, -jnp.inf, teacher)) + (1.0 - alpha) * own.astype(jnp.float32)
  return jax.nn.logsumexp(jnp.where(hidden, -jnp.inf, logits), axis=1) - (targets * logits).sum(1)
