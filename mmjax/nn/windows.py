"""Attention within windows of a feature map, and merging of patches (Swin, Liu et al. 2021)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array
from jaxtyping import Float, Int

from mmjax.nn.dense import Dense
from mmjax.nn.norm import LayerNorm
from mmjax.nn.offsets import relative_places
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import Block, TransformerConfig

_APART = -100.0  # bias of the logits between tokens that are not neighbours, as in the published models


def regions(grid: int, window: int, shift: int) -> Int[np.ndarray, "windows length"]:
  """Region of each token of the windows of a map that was rolled by `shift`.

  A window at the edge holds tokens from opposite edges of the map. Tokens of one region were neighbours.
  """
  band = np.repeat((0, 1, 2), (grid - window, window - shift, shift))
  return rearrange(3 * band[:, None] + band, "(y p) (x q) -> (y x) (p q)", p=window, q=window)


class WindowBias(nn.Module):
  """Bias of the attention logits within windows: a learned number for each head and offset.

  Between regions of a rolled map, the bias is -100. Parameter: table [(2 * window - 1)^2, heads].

  Attributes:
    num_heads: number of attention heads.
    window: side of a window in tokens.
  """

  num_heads: int
  window: int

  @nn.compact
  def __call__(self, grid: int, shift: int) -> Float[Array, "windows heads length length"]:
    shape = ((2 * self.window - 1) ** 2, self.num_heads)
    table = self.param("table", nn.initializers.truncated_normal(0.02), shape, jnp.float32)
    bias = jnp.moveaxis(jnp.take(table, jnp.asarray(relative_places(self.window)), axis=0), 2, 0)[None]
    if not shift:
      return bias
    region = regions(grid, self.window, shift)
    apart = region[:, :, None] != region[:, None]
    return bias + jnp.asarray(np.where(apart, _APART, 0.0), jnp.float32)[:, None]


class WindowBlock(nn.Module):
  """Transformer block whose attention stays within windows of the map.

  Attributes:
    config: configuration of the block.
    window: side of a window in tokens; must divide the sides of the map.
    shift: tokens by which the map is rolled before it is cut into windows, so that neighbouring windows exchange
      information (section 3.2).
  """

  config: TransformerConfig
  window: int
  shift: int

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width dim"], rng: Rngs, layer: Array
  ) -> Float[Array, "batch height width dim"]:
    batch, grid, sizes = x.shape[0], x.shape[1], dict(p=self.window, q=self.window)
    x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
    tokens = rearrange(x, "b (y p) (x q) d -> (b y x p q) d", **sizes)
    bias = WindowBias(self.config.num_heads, self.window, name="relative_bias")(grid, self.shift)
    bias = bias if len(bias) == 1 else jnp.tile(bias, (batch, 1, 1, 1))
    block: Any = Block(self.config, causal=False, length=self.window**2, name="block")
    tokens = block(tokens, None, rng, layer, bias=bias)
    x = rearrange(tokens, "(b y x p q) d -> b (y p) (x q) d", b=batch, y=grid // self.window, **sizes)
    return jnp.roll(x, (self.shift, self.shift), (1, 2))


class PatchMerging(nn.Module):
  """Joins each square of 2 x 2 tokens into one of twice the width.

  Attributes:
    dtype: compute dtype.
    epsilon: added to the variance in the norm.
  """

  dtype: str
  epsilon: float

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width dim"]) -> Float[Array, "batch rows columns features"]:
    squares = rearrange(x, "b (y p) (x q) d -> b y x (q p d)", p=2, q=2)
    squares, init = LayerNorm(self.epsilon, name="norm")(squares), nn.initializers.lecun_normal()
    return Dense(2 * x.shape[-1], init, use_bias=False, dtype=self.dtype, name="projection")(squares)
