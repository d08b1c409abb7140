"""A teacher that follows the student, and a queue of what it said (He et al. 2020, MoCo; Li et al. 2021, ALBEF)."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

PyTree = Any


def momentum_update(momentum: PyTree, params: PyTree, decay: float | Float[Array, ""]) -> PyTree:
  """decay * momentum + (1 - decay) * params, leaf by leaf (MoCo, eq. 2; ALBEF's decay is .995).

  Written as a step towards the parameters, which in float32 reaches them; no gradient flows into the result.
  """
  step = 1.0 - jnp.asarray(decay, jnp.float32)
  follow = lambda m, p: m + step.astype(m.dtype) * (p - m)
  return jax.lax.stop_gradient(jax.tree.map(follow, momentum, params))


@flax.struct.dataclass
class Queue:
  """The last `size` embeddings that a momentum encoder gave, in a ring; the same on every device.

  Attributes:
    features: unit-norm, without gradient; rows from `filled` on are nothing yet.
    concept: what each is about.
    pointer: where the next one goes.
    filled: how many there are.
  """

  features: Float[Array, "size dim"]
  concept: Int[Array, "size"]
  pointer: Int[Array, ""]
  filled: Int[Array, ""]

  @classmethod
  def empty(cls, size: int, dim: int) -> "Queue":
    """A queue with nothing in it (ALBEF begins with random vectors, which are negatives of nobody's)."""
    number = lambda: jnp.zeros((), jnp.int32)
    return cls(jnp.zeros((size, dim), jnp.float32), jnp.full(size, -1, jnp.int32), number(), number())

  @property
  def present(self) -> Bool[Array, "size"]:
    """True where there is an embedding."""
    return jnp.arange(self.features.shape[0], dtype=jnp.int32) < self.filled


def enqueue(queue: Queue, features: Float[Array, "batch dim"], concept: Int[Array, "batch"]) -> Queue:
  """The queue after the rows of the *global* batch went in, one after another; the oldest give way.

  The batch need not divide the size, nor be smaller: as if each row were written in its turn.
  """
  size, batch = queue.features.shape[0], features.shape[0]
  last = min(size, batch)  # earlier rows of a batch that goes round would be overwritten at once
  places = (queue.pointer + jnp.arange(batch - last, batch, dtype=jnp.int32)) % size
  features = jax.lax.stop_gradient(features[batch - last :]).astype(queue.features.dtype)
  return Queue(
    features=queue.features.at[places].set(features),
    concept=queue.concept.at[places].set(concept[batch - last :].astype(jnp.int32)),
    pointer=(queue.pointer + batch) % size,
    filled=jnp.minimum(queue.filled + batch, size),
  )
