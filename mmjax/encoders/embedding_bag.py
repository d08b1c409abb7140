"""Embedding bag: the weighted mean of the embeddings of some ids, such as the items of a history."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.data.columns.ids import FIRST, PADDING, UNKNOWN
from mmjax.encoders.config import TowerConfig
from mmjax.nn.stochastic import Rngs, dropout, fold_in
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class EmbeddingBagConfig(TowerConfig):
  """Configuration of an embedding bag, for the array of a column `Ids`. A run sets `names` from its data."""

  width: int = 64
  """Width of the embeddings."""
  length: int = 1
  """Number of ids in a row, that of the column."""
  names: int = 1
  """Number of names in the vocabulary of the column."""
  dropout: float = 0.0
  """Probability of dropping an element of an embedding."""
  id_dropout: float = 0.0
  """Probability of replacing an id by that of unknown names, so that other towers learn to do without it (DropoutNet,
  Volkovs et al. 2017)."""

  def __post_init__(self) -> None:
    if min(self.width, self.length, self.names) < 1:
      raise ValueError(f"width={self.width}, length={self.length} and names={self.names} must be at least 1")
    for name in ("dropout", "id_dropout"):
      if not 0 <= getattr(self, name) < 1:
        raise ValueError(f"{name}={getattr(self, name)} must lie in [0, 1)")

  @property
  def pooled_width(self) -> int:
    return self.width

  def fitted(self, learnt: Any) -> "EmbeddingBagConfig":
    if not isinstance(learnt, Mapping) or "ids" not in learnt:
      return self
    return dataclasses.replace(self, names=len(learnt["ids"]))

  def flops(self) -> int:
    return 2 * self.length * self.width

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.length), jnp.int32)

  def build(self) -> nn.Module:
    return EmbeddingBag(self)


class EmbeddingBag(nn.Module):
  """Embedding bag. Maps ids [batch, length] of a column `Ids` to `Encoded`.

  `pooled` is the mean of the embeddings with weights that are learned for each place: exp(b_place), divided by their
  sum over the ids of the row that are not padding. A row without ids has the pooled vector 0, and the embedding of
  unknown names begins at 0.

  Parameters: token_embedding [2 + names, width], place_bias [length] (b, which begins at 0).

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mmjax.encoders import EmbeddingBagConfig
    >>> bag = EmbeddingBagConfig(width=4, length=3, names=5).build()
    >>> encoded, _ = bag.init_with_output(jax.random.key(0), jnp.asarray([[2, 6, 0], [0, 0, 0]]))
    >>> encoded.tokens.shape, encoded.mask.tolist()
    ((2, 3, 4), [[True, True, False], [False, False, False]])
  """

  config: EmbeddingBagConfig

  @nn.compact
  def __call__(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded:
    c = self.config

    def init(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
      return (jax.random.normal(key, shape, dtype) * c.width**-0.5).at[: UNKNOWN + 1].set(0.0)

    table = self.param("token_embedding", init, (FIRST + c.names, c.width), jnp.float32)
    bias = self.param("place_bias", nn.initializers.zeros, (c.length,), jnp.float32)
    mask = ids != PADDING
    if rng is not None and c.id_dropout:
      gone = jax.vmap(lambda key: jax.random.bernoulli(key, c.id_dropout, ids.shape[1:]))(fold_in(rng, 1))
      ids = jnp.where(gone & mask, UNKNOWN, ids)
    tokens = dropout(jnp.take(table, ids, axis=0), rate=c.dropout, rng=rng)
    tokens = jnp.where(mask[:, :, None], tokens, 0.0)
    return Encoded(tokens, mask, _weighted_mean(tokens, jnp.where(mask, jnp.exp(bias)[None], 0.0)))


def _weighted_mean(
  tokens: Float[Array, "batch length width"], weights: Float[Array, "batch length"]
) -> Float[Array, "batch width"]:
  total = weights.sum(axis=1, keepdims=True)
  return jnp.einsum("bld,bl->bd", tokens, weights / jnp.where(total > 0, total, 1.0))
