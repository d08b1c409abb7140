"""Key-value cache of a decoder: static shapes, one write per step, and no key or value computed twice."""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from mmjax.nn.attention import Projections, attention_by_hand
from mmjax.nn.rotary import Rotation, rotate
from mmjax.nn.transformer import TransformerConfig


@flax.struct.dataclass
class KeyValue:
  """Keys and values of one attention layer. Heads come first, so that a step reads them without a transpose."""

  key: Float[Array, "batch heads length dim"]
  value: Float[Array, "batch heads length dim"]


@flax.struct.dataclass
class LayerMemory:
  """Cached keys and values of one decoder block.

  Attributes:
    own: keys and values of the decoder's tokens so far, for self-attention.
    context: keys and values of the context, for cross-attention; None if they have not been computed.
  """

  own: KeyValue
  context: KeyValue | None = None


@flax.struct.dataclass
class Cache:
  """Decoder cache. The batch is the leading axis of every leaf.

  Attributes:
    length: number of tokens that each row has read, which is the position of its next token. Values in the buffers
      beyond this position are never read.
    layers: one memory per block.
    context_mask: True for each token of the context that may be read; None if there is no context or no mask.
  """

  length: Int[Array, "batch"]
  layers: tuple[LayerMemory, ...]
  context_mask: Bool[Array, "batch k"] | None = None

  @property
  def capacity(self) -> int:
    """Number of tokens that each row has room for."""
    return self.layers[0].own.key.shape[2]

  def places(self, count: int) -> Int[Array, "batch count"]:
    """Positions of the next `count` tokens of each row."""
    return _places(self.length, count)


def empty_cache(config: TransformerConfig, batch_size: int, length: int) -> Cache:
  """Empty cache for `length` tokens of each of `batch_size` rows."""
  heads = config.key_heads or config.num_heads
  shape = (batch_size, heads, length, config.key_width // heads)
  blank = jnp.zeros(shape, config.dtype)
  layers = tuple(LayerMemory(KeyValue(blank, blank)) for _ in range(config.depth))
  return Cache(jnp.zeros((batch_size,), jnp.int32), layers)


def rewind(caches: Any, length: Int[Array, "batch"]) -> Any:
  """Sets the length of all caches in a pytree, which discards each row's tokens from position `length` on."""
  is_cache = lambda node: isinstance(node, Cache)
  return jax.tree.map(lambda node: node.replace(length=length) if is_cache(node) else node, caches, is_leaf=is_cache)


def reorder(caches: Any, parents: Int[Array, "batch beams"]) -> Any:
  """Reorders the beams of caches with batch * beams rows: beam j continues from beam `parents[:, j]` of its example.

  The context is the same for all beams of an example, so its keys and values are not moved.
  """

  def gather(leaf: Array) -> Array:
    beams = rearrange(leaf, "(b j) h l d -> b j h l d", j=parents.shape[1])
    chosen = jnp.take_along_axis(beams, parents[:, :, None, None, None], axis=1)
    return rearrange(chosen, "b j h l d -> (b j) h l d")

  def of_node(node: Any) -> Any:
    return LayerMemory(jax.tree.map(gather, node.own), node.context) if isinstance(node, LayerMemory) else node

  return jax.tree.map(of_node, caches, is_leaf=lambda node: isinstance(node, LayerMemory))


class CachedAttention(Projections):
  """`MultiHeadAttention` for evaluation with cached keys and values; its parameters are the same."""

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "batch length width"],
    memory: KeyValue | None,
    *,
    start: Int[Array, "batch"] | None = None,
    context: Float[Array, "batch k context_width"] | None = None,
    mask: Bool[Array, "batch k"] | None = None,
    rotation: Rotation | None = None,
    pairs: Bool[Array, "longest longest"] | None = None,
    bias: Float[Array, "#batch heads length cached"] | None = None,
    readable: Bool[Array, "batch length k"] | None = None,
  ) -> tuple[Float[Array, "batch length width"], KeyValue]:
    """Applies attention to new tokens and updates the cache.

    With `start`, this is causal self-attention. Without it, this is cross-attention over `context`.

    Args:
      x: the new tokens.
      memory: keys and values so far. None for cross-attention whose context has not been read yet.
      start: position of the first token of `x` in each row, for self-attention.
      context: tokens for cross-attention; needed only if `memory` is None.
      mask: True for each token of the context that may be read.
      rotation: rotation of the new tokens (rotary position embedding).
      pairs: with `start`, True for a position (row) and an earlier one that it may read (column); None: all.
      bias: with `start`, added to the scaled logits of the cached keys.
      readable: for cross-attention, in place of `mask`: True for a new token and a token of the context that it may
        read. A token that may read none gets zeros, before the output projection.
    Returns: the attention output after the output projection, and the updated keys and values.
    """
    width = x.shape[-1]
    query = self._heads_first("query", x, width, rotation)
    if start is not None:
      assert memory is not None
      memory = _written(memory, self._keys_and_values(x, width, rotation), start)
      allowed: Array | None = _until(start, x.shape[1], memory.key.shape[2], pairs)
    else:
      memory = self._keys_and_values(context, width) if memory is None else memory
      allowed = None if mask is None else mask[:, None, None, :]
      allowed = allowed if readable is None else readable[:, None]
    # Queries that share a head of keys become more queries of that head, so that the cache is not copied.
    group = query.shape[1] // memory.key.shape[1]
    query = rearrange(query, "b (h g) l d -> b h (g l) d", g=group)
    allowed = allowed if allowed is None or allowed.shape[2] == 1 else jnp.tile(allowed, (1, 1, group, 1))
    bias = None if bias is None else rearrange(bias, "b (h g) l k -> b h (g l) k", g=group)
    out = attention_by_hand(query, memory.key, memory.value, allowed, bias)
    out = rearrange(out, "b h (g l) d -> (b l) (h g d)", g=group)
    return self._combine(out, width, batch=x.shape[0]), memory

  @nn.nowrap
  def _keys_and_values(self, x: Any, width: int, rotation: Rotation | None = None) -> KeyValue:
    return KeyValue(self._heads_first("key", x, width, rotation), self._heads_first("value", x, width))

  @nn.nowrap
  def _heads_first(
    self, name: str, x: Array, width: int, rotation: Rotation | None = None
  ) -> Float[Array, "batch heads length dim"]:
    heads = self._project(name, rearrange(x, "b l w -> (b l) w"), width, batch=x.shape[0])
    heads = heads if rotation is None else rotate(heads, rotation)
    return rearrange(heads, "b l h d -> b h l d")


def _until(
  start: Int[Array, "batch"], count: int, length: int, pairs: Bool[Array, "longest longest"] | None = None
) -> Bool[Array, "batch 1 count length"]:
  """Causal mask over `length` positions for the tokens at positions start, start + 1, ..., start + count - 1.

  Of the earlier positions, only those in `pairs` may be read, if it is given.
  """
  places = _places(start, count)
  causal = jnp.arange(length, dtype=jnp.int32)[None, None] <= places[:, :, None]
  return (causal if pairs is None else causal & pairs[places, :length])[:, None]


def _places(start: Int[Array, "batch"], count: int) -> Int[Array, "batch count"]:
  """Positions of `count` tokens that begin at `start`."""
  return start[:, None] + jnp.arange(count, dtype=jnp.int32)[None]


def _written(memory: KeyValue, new: KeyValue, start: Int[Array, "batch"]) -> KeyValue:
  write = jax.vmap(lambda old, part, place: lax.dynamic_update_slice_in_dim(old, part, place, axis=1))
  return jax.tree.map(lambda old, part: write(old, part, start), memory, new)
