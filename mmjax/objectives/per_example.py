"""From the losses of places (words, patches, pixels) to one loss and one weight per example."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int


class ExampleLosses(NamedTuple):
  """What every per-example objective returns; `batch_mean(*result, axis_name=...)` averages it over the global batch.

  Attributes:
    losses: float32; 0 where the weight is 0.
    weights: float32; each example's importance in the batch's mean, 0 where it has nothing to predict.
  """

  losses: Float[Array, "batch"]
  weights: Float[Array, "batch"]


def mean_where(losses: Float[Array, "batch *places"], counted: Bool[Array, "batch *places"]) -> ExampleLosses:
  """Each example's mean over the places that count; loss and weight 0 where none does."""
  places = tuple(range(1, losses.ndim))
  count = counted.sum(places, dtype=jnp.float32)
  total = jnp.where(counted, losses.astype(jnp.float32), 0.0).sum(places)
  return ExampleLosses(total / jnp.maximum(count, 1.0), (count > 0).astype(jnp.float32))


def cross_entropy(
  logits: Float[Array, "*places classes"], labels: Int[Array, "*places"], *, label_smoothing: float = 0.0
) -> Float[Array, "*places"]:
  """-log softmax(logits)[label] in float32, nats.

  Args:
    labels: class numbers; what stands where a place does not count may be anything (it is clipped into range).
    label_smoothing: the target is (1 - e) one-hot + e / classes (Szegedy et al. 2016, section 7).
  """
  logits = logits.astype(jnp.float32)
  labels = jnp.clip(labels, 0, logits.shape[-1] - 1)
  said = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
  if label_smoothing:
    said = (1.0 - label_smoothing) * said + label_smoothing * logits.mean(-1)
  return jax.nn.logsumexp(logits, axis=-1) - said


def class_loss(logits: Float[Array, "batch classes"], labels: Int[Array, "batch"]) -> ExampleLosses:
  """Cross-entropy of one class per example; weight 0 where it is unknown (negative)."""
  known = labels >= 0
  return ExampleLosses(jnp.where(known, cross_entropy(logits, labels), 0.0), known.astype(jnp.float32))


def weighted(loss: ExampleLosses, weights: Float[Array, "batch"] | None) -> ExampleLosses:
  """The same losses, each example's weight multiplied (None: by 1)."""
  return loss if weights is None else ExampleLosses(loss.losses, loss.weights * weights.astype(jnp.float32))
