"""Bias of the attention logits for the offset of two places of a square map."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from mmjax.nn.dense import Dense


def relative_places(side: int) -> Int[np.ndarray, "length length"]:
  """Number of the offset of each query (row) and key (column) of a square window: row offset first, from 0.

  Example:
    >>> from mmjax.nn.offsets import relative_places
    >>> relative_places(2).tolist()
    [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
  """
  y, x = np.divmod(np.arange(side**2), side)
  offsets = [places[:, None] - places[None] + side - 1 for places in (y, x)]
  return (offsets[0] * (2 * side - 1) + offsets[1]).astype(np.int32)


class OffsetBias(nn.Module):
  """Bias of the attention logits from a small MLP of the logarithm of the offset (after Swin V2, Liu et al. 2022).

  A row or column offset d enters as sign(d) log(1 + |d|). Tokens before the map have no bias. Parameters: up, down.

  Attributes:
    num_heads: number of attention heads.
    grid: patches along one side of the map.
    first: number of tokens before the patches.
    hidden: hidden width of the MLP.
  """

  num_heads: int
  grid: int
  first: int
  hidden: int

  @nn.compact
  def __call__(self) -> Float[Array, "heads length length"]:
    steps = np.arange(1 - self.grid, self.grid, dtype=np.float32)
    steps = np.sign(steps) * np.log1p(np.abs(steps))
    offsets = jnp.asarray(np.stack(np.meshgrid(steps, steps, indexing="ij"), -1).reshape(-1, 2))
    init = nn.initializers.lecun_normal()
    table = Dense(self.num_heads, init, name="down")(jax.nn.relu(Dense(self.hidden, init, name="up")(offsets)))
    bias = jnp.moveaxis(jnp.take(table, jnp.asarray(relative_places(self.grid)), axis=0), 2, 0)
    return jnp.pad(bias, ((0, 0), (self.first, 0), (self.first, 0)))


class PatchBias(nn.Module):
  """Bias of the attention logits: a learned number for each head and offset of two patches (BEiT, Bao et al. 2022).

  A class token stands before the patches. Three more numbers are for what it reads, for what reads it, and for itself.
  Parameter: table [(2 * grid - 1)^2 + 3, heads].

  Attributes:
    num_heads: number of attention heads.
    grid: patches along one side of the map.
  """

  num_heads: int
  grid: int

  @nn.compact
  def __call__(self) -> Float[Array, "heads length length"]:
    offsets = (2 * self.grid - 1) ** 2
    table = self.param("table", nn.initializers.truncated_normal(0.02), (offsets + 3, self.num_heads), jnp.float32)
    places = np.pad(relative_places(self.grid), ((1, 0), (1, 0)))
    places[0], places[1:, 0], places[0, 0] = offsets, offsets + 1, offsets + 2
    return jnp.moveaxis(jnp.take(table, jnp.asarray(places), axis=0), 2, 0)
