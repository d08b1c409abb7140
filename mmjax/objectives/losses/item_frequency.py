"""Frequencies of items in a stream of batches, estimated as it passes (Yi et al. 2019, algorithm 2)."""

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

_MULTIPLIERS = (1, 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35, 0x27D4EB2F)  # odd: each permutes the numbers of 32 bits


class ItemFrequency(flax.struct.PyTreeNode):
  """State of the estimate: one row for each hash function, one column for each slot.

  Attributes:
    last: step at which an item of the slot was last in a batch; -1 before the first.
    gap: estimated number of examples from one occurrence to the next.
    count: number of occurrences.
  """

  last: Int[Array, "hashes slots"]
  gap: Float[Array, "hashes slots"]
  count: Float[Array, "hashes slots"]

  @classmethod
  def empty(cls, slots: int, hashes: int = 1) -> "ItemFrequency":
    """The state before the first batch."""
    shape = (hashes, slots)
    return cls(jnp.full(shape, -1, jnp.int32), jnp.zeros(shape, jnp.float32), jnp.zeros(shape, jnp.float32))

  def log_frequency(self, items: Int[Array, "batch"]) -> Float[Array, "batch"]:
    """Logarithm of the share of the examples that have each item. It is 0 for an item that was in no batch yet.

    With several hash functions it is the smallest estimate: items that share a slot can only raise it.
    """
    gaps = jnp.take_along_axis(self.gap, self._slots(items), axis=1)
    return -jnp.log(jnp.maximum(gaps.max(axis=0), 1.0))

  def updated(self, items: Int[Array, "batch"], step: Int[Array, ""], *, share: float) -> "ItemFrequency":
    """The state after a batch.

    The paper takes one item a step. An item that is c times in a batch counts as c occurrences at equal gaps. The first
    1 / share occurrences of an item have equal weights, so that the estimate does not remember its first gap.

    Args:
      items: non-negative numbers of the items of the global batch.
      step: number of batches before this one.
      share: weight of an occurrence in the moving average of the gaps (the paper's alpha), in (0, 1).
    """
    slots = self._slots(items)
    found = jax.vmap(lambda each: jnp.zeros(self.gap.shape[1], jnp.float32).at[each].add(1.0))(slots)
    passed = (step - self.last).astype(jnp.float32) * len(items)
    total = self.count + found
    weight = jnp.maximum(1.0 - (1.0 - share) ** found, found / jnp.maximum(total, 1.0))
    gap = self.gap + weight * (passed / jnp.maximum(found, 1.0) - self.gap)
    there = found > 0
    return ItemFrequency(jnp.where(there, step, self.last), jnp.where(there, gap, self.gap), total)

  def _slots(self, items: Int[Array, "batch"]) -> Int[Array, "hashes batch"]:
    """Slots of items. The first hash function is the remainder, which has no collision among fewer items than slots."""
    hashes, slots = self.gap.shape
    numbers = items.astype(jnp.uint32)
    mixed = [numbers] + [(numbers * jnp.uint32(_MULTIPLIERS[place])) >> 7 for place in range(1, hashes)]
    return jnp.stack([(each % jnp.uint32(slots)).astype(jnp.int32) for each in mixed])
