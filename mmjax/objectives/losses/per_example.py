"""Reduction from losses of tokens (words, patches, pixels) to one loss and one weight per example."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int


class ExampleLosses(NamedTuple):
  """Result of every per-example objective.

  `batch_mean(*result, axis_name=...)` averages it over the global batch.

  Attributes:
    losses: float32. The value is ignored where the weight is 0.
    weights: float32. Importance of each example in the mean over the batch; 0 if it has nothing to predict.
  """

  losses: Float[Array, "batch"]
  weights: Float[Array, "batch"]


def mean_where(losses: Float[Array, "batch *places"], counted: Bool[Array, "batch *places"]) -> ExampleLosses:
  """Mean of each example over the places where `counted` is True. Loss and weight are 0 if there are none."""
  places = tuple(range(1, losses.ndim))
  count = counted.sum(places, dtype=jnp.float32)
  total = jnp.where(counted, losses.astype(jnp.float32), 0.0).sum(places)
  return ExampleLosses(total / jnp.maximum(count, 1.0), (count > 0).astype(jnp.float32))


def cross_entropy(
  logits: Float[Array, "*places classes"], labels: Int[Array, "*places"], *, label_smoothing: float = 0.0
) -> Float[Array, "*places"]:
  """-log softmax(logits)[label] in float32, in nats.

  Args:
    logits: scores of the classes.
    labels: class numbers. They are clipped to the valid range, so places that do not count may hold any number.
    label_smoothing: the target is (1 - e) one-hot + e / classes (Szegedy et al. 2016, section 7).
  """
  logits = logits.astype(jnp.float32)
  labels = jnp.clip(labels, 0, logits.shape[-1] - 1)
  said = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
  if label_smoothing:
    said = (1.0 - label_smoothing) * said + label_smoothing * logits.mean(-1)
  return jax.nn.logsumexp(logits, axis=-1) - said


def class_loss(logits: Float[Array, "batch classes"], labels: Int[Array, "batch"]) -> ExampleLosses:
  """Cross-entropy of one class per example. The weight is 0 if the class is unknown (negative)."""
  known = labels >= 0
  return ExampleLosses(jnp.where(known, cross_entropy(logits, labels), 0.0), known.astype(jnp.float32))


def correct(logits: Float[Array, "batch classes"], labels: Int[Array, "batch"]) -> ExampleLosses:
  """Accuracy of each example: 1 if its label has the largest score (of equal ones, the first). All weights are 1."""
  right = (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)
  return ExampleLosses(right, jnp.ones_like(right))


def weighted(loss: ExampleLosses, weights: Float[Array, "batch"] | None) -> ExampleLosses:
  """Multiplies the weights of the examples by `weights` (None: by 1). The losses stay."""
  return loss if weights is None else ExampleLosses(loss.losses, loss.weights * weights.astype(jnp.float32))
