"""Momentum encoder and queue of its embeddings (He et al. 2020, MoCo; Li et al. 2021, ALBEF)."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

PyTree = Any


def momentum_update(momentum: PyTree, params: PyTree, decay: float | Float[Array, ""]) -> PyTree:
  """decay * momentum + (1 - decay) * params, leaf by leaf (MoCo, eq. 2; ALBEF's decay is 0.995).

  It is computed as a step from `momentum` towards `params`, so that equal values stay exactly equal in float32. The
  result has no gradient.
  """
  step = 1.0 - jnp.asarray(decay, jnp.float32)
  follow = lambda m, p: m + step.astype(m.dtype) * (p - m)
  return jax.lax.stop_gradient(jax.tree.map(follow, momentum, params))


@flax.struct.dataclass
class Queue:
  """The last `size` embeddings of a momentum encoder, in a ring buffer. It is the same on every device.

  Attributes:
    features: unit-norm embeddings, without gradient. Rows from `filled` on are empty.
    concept: concept number of each embedding.
    pointer: row of the next embedding.
    filled: number of embeddings.
  """

  features: Float[Array, "size dim"]
  concept: Int[Array, "size"]
  pointer: Int[Array, ""]
  filled: Int[Array, ""]

  @classmethod
  def empty(cls, size: int, dim: int) -> "Queue":
    """Empty queue. (ALBEF starts with random vectors instead.)"""
    number = lambda: jnp.zeros((), jnp.int32)
    return cls(jnp.zeros((size, dim), jnp.float32), jnp.full(size, -1, jnp.int32), number(), number())

  @property
  def present(self) -> Bool[Array, "size"]:
    """True for rows that hold an embedding."""
    return jnp.arange(self.features.shape[0], dtype=jnp.int32) < self.filled


def enqueue(queue: Queue, features: Float[Array, "batch dim"], concept: Int[Array, "batch"]) -> Queue:
  """Appends the rows of the *global* batch in order, and overwrites the oldest embeddings.

  The batch may have any size. The result is the same as if each row was written separately.
  """
  size, batch = queue.features.shape[0], features.shape[0]
  last = min(size, batch)  # earlier rows of a batch larger than the queue would be overwritten immediately
  places = (queue.pointer + jnp.arange(batch - last, batch, dtype=jnp.int32)) % size
  features = jax.lax.stop_gradient(features[batch - last :]).astype(queue.features.dtype)
  return Queue(
    features=queue.features.at[places].set(features),
    concept=queue.concept.at[places].set(concept[batch - last :].astype(jnp.int32)),
    pointer=(queue.pointer + batch) % size,
    filled=jnp.minimum(queue.filled + batch, size),
  )
