"""Loss term for recommendation: sampled softmax with logQ correction."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.errors import ConfigError
from mmjax.models.recommender import ITEM, USER
from mmjax.objectives.losses.item_frequency import ItemFrequency
from mmjax.objectives.losses.sampled_softmax import sampled_softmax_loss
from mmjax.objectives.terms.base import BatchTerm, Whole
from mmjax.objectives.terms.sharded import over_shards


@dataclasses.dataclass(frozen=True)
class SampledSoftmax(BatchTerm):
  """Cross-entropy of the item of each user among the items of the batch (Yi et al. 2019), for a Recommender.

  The sampling probabilities are estimated from the stream of batches: 12 bytes for each slot and hash function.
  """

  between: tuple[str, str] = (USER, ITEM)
  """Names of the embeddings of users and items."""
  inputs: tuple[str, ...] = ("history", "item")
  """Names of the arrays that the model encodes: all of its towers."""
  item: str = "item"
  """Name of the array with the id of the item (column Ids). Rows with equal ids are no negatives of each other."""
  seen: str = ""
  """Name of the array with ids, of the same vocabulary, of items that are no negatives of a user, such as history. "":
  none."""
  log_q: bool = True
  """Subtract the logarithm of the estimated frequency of an item from its logits. False: frequent items are pushed
  down, as they are negatives more often."""
  share: float = 0.01
  """Weight of an occurrence in the moving average of the gaps between the occurrences of an item."""
  slots: int = 65_536
  """Slots of the estimate. Items share slots if there are more ids than these."""
  hashes: int = 1
  """Hash functions of the estimate, up to 5. More than one: for more ids than slots."""
  mixed: bool = False
  """Also use the items that the source draws uniformly (`other`) as negatives (Yang et al. 2020). Each array of the
  item then has a second one, whose name ends in 2. The frequency is that of the mixture."""
  items: int = 0
  """Number of items, for the frequency of the mixture. 0: that of the vocabulary of `item`."""
  tile_size: int | None = None
  """Largest number of rows and columns of the similarity matrix in memory at once. None: chosen for the backend."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if not 0 < self.share < 1:
      raise ValueError(f"share={self.share} must lie in (0, 1)")
    if self.slots < 1 or not 1 <= self.hashes <= 5:
      raise ValueError(f"slots={self.slots} must be at least 1, and hashes={self.hashes} must lie in [1, 5]")

  @property
  def name(self) -> str:
    return "sampled_softmax"

  @property
  def embeds(self) -> tuple[str, ...]:
    return (*self.between, *((f"{self.between[1]}2",) if self.mixed else ()))

  @property
  def encodes(self) -> tuple[str, ...]:
    return self.inputs

  @property
  def needs(self) -> tuple[str, ...]:
    ids = (self.item, *((f"{self.item}2",) if self.mixed else ()), *((self.seen,) if self.seen else ()))
    return tuple(dict.fromkeys((*self.inputs, *ids)))

  @property
  def spares_duplicates(self) -> bool:
    return True

  def check(self, model: Any, columns: Mapping[str, Any]) -> None:
    towers = tuple(getattr(model, "towers", ()))
    user = tuple(getattr(model, "of_user", ()))
    second = tuple(f"{name}2" for name in towers if name not in user) if self.mixed else ()
    for name in (*towers, *second):
      if name not in self.inputs:
        raise ConfigError(
          f"the objective {self.name} reads {', '.join(self.inputs)}, and the model encodes {name!r} too: add it to "
          "the inputs of the objective, or change the towers"
        )

  def fitted(self, *, num_records: int, learnt: Mapping[str, Any]) -> "SampledSoftmax":
    known = learnt.get(self.item)
    return self if self.items or not known else dataclasses.replace(self, items=len(known["ids"]))

  def memory(self, embed_dim: int) -> ItemFrequency | None:
    """Make the frequency estimate."""
    return ItemFrequency.empty(self.slots, self.hashes) if self.log_q else None

  def over_batch(self, whole: Whole) -> tuple[Float[Array, ""], ItemFrequency | None]:
    user, item = self.between
    ids = lambda name: whole.batch[name][:, 0]
    frequency = whole.memory.updated(ids(self.item), whole.step, share=self.share) if self.log_q else None
    rows: dict[str, Any] = {
      "user": whole.embeddings[user],
      "item": whole.embeddings[item],
      "ids": ids(self.item),
      "log_q": self._log_q(frequency, ids(self.item)),
      "seen": whole.batch[self.seen] if self.seen else None,
    }
    if self.mixed:
      drawn = ids(f"{self.item}2")
      rows["other"] = (whole.embeddings[f"{item}2"], drawn, self._log_q(frequency, drawn))

    def local(rows: dict[str, Any], scale: Array) -> Array:
      return sampled_softmax_loss(**rows, logit_scale=scale, axis_name=whole.axes, tile_size=self.tile_size)

    return over_shards(local, whole, (rows,), (whole.logit_scale,)), frequency

  def chance(self, batch_size: int, model: Any) -> float | None:
    return None if self.log_q else math.log(batch_size * (1 + self.mixed))

  def _log_q(self, frequency: ItemFrequency | None, ids: Int[Array, "batch"]) -> Float[Array, "batch"]:
    """Logarithm of the probability of items in the sample, up to a constant. Zeros without the correction."""
    if frequency is None:
      return jnp.zeros(ids.shape, jnp.float32)
    own = frequency.log_frequency(ids)
    return jnp.logaddexp(own, -jnp.log(jnp.float32(max(self.items, 1)))) if self.mixed else own
