"""Transformer decoder: self-attention, causal or bidirectional, with optional cross-attention."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.nn.attention import MultiHeadAttention
from mmjax.nn.cache import Cache, CachedAttention, KeyValue, LayerMemory
from mmjax.nn.dense import Initializer
from mmjax.nn.initial import kernel_init
from mmjax.nn.norm import LayerScale
from mmjax.nn.relative import RelativeBias
from mmjax.nn.rotary import Rotation
from mmjax.nn.stochastic import Rngs, drop_path, dropout, dropout_factors, fold_in
from mmjax.nn.transformer import TransformerConfig, block_attention, block_mlp, norm_layer, rematerialised
from mmjax.types import Encoded

Tokens = Float[Array, "batch length width"]
Remembered = KeyValue | None
Before = Callable[[int, Tokens], Tokens]

_FORBIDDEN = -1e9  # added to a logit, leaves a weight of exactly 0


@flax.struct.dataclass
class Reading:
  """Masks, context and positions that all blocks of a stack share.

  Attributes:
    mask: True for each token of the sequence itself that may be read; None: all.
    context: tokens of another modality or text, for cross-attention.
    context_mask: True for each token of the context that may be read; None: all.
    start: position of the first new token in each row; used with a cache only.
    rotation: rotation of the tokens of the sequence (rotary position embedding); None: none.
    pairs: True for each token of the sequence (row) and a token that it may read (column); None: all.
    bias: bias of the logits of self-attention (relative positions); with a cache, of all cached tokens. None: none.
  """

  mask: Bool[Array, "batch length"] | None = None
  context: Float[Array, "batch k context_width"] | None = None
  context_mask: Bool[Array, "batch k"] | None = None
  start: Int[Array, "batch"] | None = None
  rotation: Rotation | None = None
  pairs: Bool[Array, "length length"] | None = None
  bias: Float[Array, "#batch heads length keys"] | None = None


class DecoderBlock(nn.Module):
  """Self-attention, cross-attention if there is a context, and an MLP, with pre-norm or post-norm.

  Parameters: attention, cross_attention, mlp, and their norms norm1, norm_cross, norm2. With `separate_causal` and
  `causal`, causal_attention takes the place of attention. With `cross_mlp` also norm_context, cross_mlp and
  norm_cross_mlp. With `config.layer_scale` also a scale for each branch: scale1, scale_cross, scale2, scale_cross_mlp.
  A mode creates only the parameters that it uses.

  Attributes:
    config: configuration of the stack.
    causal: if True, a token reads only itself and earlier tokens.
    separate_causal: if True, causal self-attention has its own weights (BLIP, Li et al. 2022, section 3.1).
    cross_mlp: if True, cross-attention follows the MLP as a separate block, with a norm on the context and a second MLP
      (open_clip's CoCa).
  """

  config: TransformerConfig
  causal: bool
  separate_causal: bool
  cross_mlp: bool = False

  @nn.compact
  def __call__(
    self, x: Tokens, reading: Reading, rng: Rngs, layer: Array, memory: LayerMemory | None = None
  ) -> tuple[Tokens, LayerMemory | None]:
    """Applies the block.

    Args:
      x: tokens.
      reading: masks, context and positions.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      layer: number of the block in the stack.
      memory: cached keys and values of this block; None: no cache.
    Returns: the tokens, and the updated memory (None without `memory`).
    """
    c = self.config
    rng = fold_in(rng, layer)
    rate = c.drop_path * layer.astype(jnp.float32) / max(1, c.depth - 1)

    def add(x: Tokens, name: str, stream: int, branch: Callable[[Tokens], tuple[Array, Remembered]]) -> Any:
      norm = norm_layer(c, name)
      y, remembered = branch(norm(x) if c.norm == "pre" else x)
      y = norm(y) if c.norm == "branch" else y
      if c.layer_scale is not None:
        y = LayerScale(c.layer_scale, name=name.replace("norm", "scale"))(y)
      y = dropout(y, rate=c.dropout, rng=fold_in(rng, stream + 4))
      x = x + (drop_path(y, rate=rate, rng=fold_in(rng, stream)) if c.drop_path else y)
      return (norm(x) if c.norm == "post" else x), remembered

    def think(x: Tokens, name: str, stream: int, norm: str) -> Tokens:
      mlp = block_mlp(c, self._out_init(), name)
      return add(x, norm, stream, lambda y: (mlp(y), None))[0]

    known = None if memory is None else memory.context
    x, own = add(x, "norm1", 0, lambda y: self._read_own(y, reading, memory, fold_in(rng, 8)))
    if self.cross_mlp:
      x = think(x, "mlp", 2, "norm2")
    if known is not None or reading.context is not None:
      x, known = add(x, "norm_cross", 1, lambda y: self._read_context(y, reading, memory, fold_in(rng, 9)))
      x = think(x, "cross_mlp", 3, "norm_cross_mlp") if self.cross_mlp else x
    x = x if self.cross_mlp else think(x, "mlp", 2, "norm2")
    return x, None if own is None else LayerMemory(own, known)

  @nn.nowrap
  def _read_own(self, y: Tokens, reading: Reading, memory: LayerMemory | None, rng: Rngs) -> tuple[Tokens, Remembered]:
    name = "causal_attention" if self.causal and self.separate_causal else "attention"
    if memory is None:
      both = None if reading.rotation is None else (reading.rotation, reading.rotation)
      attention = MultiHeadAttention(**self._fields(), name=name)
      kept = self._kept(y, None, rng)
      bias = reading.bias
      if reading.pairs is not None:
        forbidden = _forbidding(reading.pairs, self.config.num_heads)
        bias = forbidden if bias is None else bias + forbidden
      return attention(y, mask=reading.mask, causal=self.causal, bias=bias, rotations=both, factors=kept), None
    cached = CachedAttention(**self._fields(), name=name)
    own: Any = dict(start=reading.start, rotation=reading.rotation, pairs=reading.pairs, bias=reading.bias)
    return cached(y, memory.own, **own)

  @nn.nowrap
  def _read_context(
    self, y: Tokens, reading: Reading, memory: LayerMemory | None, rng: Rngs
  ) -> tuple[Tokens, Remembered]:
    name, mask, context = "cross_attention", reading.context_mask, reading.context
    if self.cross_mlp and context is not None:
      context = norm_layer(self.config, "norm_context")(context)
    if memory is None:
      attention = MultiHeadAttention(**self._fields(), name=name)
      return attention(y, context, mask=mask, factors=self._kept(y, context, rng)), None
    known = memory.context if context is None else None
    return CachedAttention(**self._fields(), name=name)(y, known, context=context, mask=mask)

  @nn.nowrap
  def _kept(self, y: Tokens, read: Array | None, rng: Rngs) -> Array | None:
    shape = (self.config.num_heads, y.shape[1], (y if read is None else read).shape[1])
    return dropout_factors(shape, rate=self.config.attention_dropout, rng=rng)

  @nn.nowrap
  def _fields(self) -> dict[str, Any]:
    return block_attention(self.config, self._out_init())

  @nn.nowrap
  def _out_init(self) -> Initializer:
    # As in `Block`, projections into the residual stream have smaller initial weights in a deeper network (GPT-2).
    c = self.config
    return kernel_init(c.init_scheme, c.width**-0.5 * (2 * c.depth) ** -0.5)


def _forbidding(pairs: Bool[Array, "length length"], heads: int) -> Float[Array, "1 heads length length"]:
  """Bias of attention logits that leaves no weight to forbidden pairs."""
  bias = jnp.where(pairs, 0.0, _FORBIDDEN)[None, None]
  return jnp.broadcast_to(bias, (1, heads, *pairs.shape))


class Decoder(nn.Module):
  """A stack of decoder blocks, followed by a layer norm unless the blocks are post-norm or `final_norm` is False.

  One stack can be called in several modes: with or without a context, causal or bidirectional. The modes share all
  parameters, except those that only one mode uses: cross-attention's with a context and, with `separate_causal`,
  self-attention's.

  Parameters: block_0, block_1, ... or, with `config.scan`, one `blocks` with a leading layer axis; norm (with
  `final_norm`, not with post-norm); input_norm and relative_bias (of self-attention), if the configuration sets them.

  Attributes:
    config: configuration of the stack.
    separate_causal, cross_mlp: see `DecoderBlock`.
    final_norm: if True, a stack that is not post-norm ends in a layer norm. Use False if another stack follows.
  """

  config: TransformerConfig
  separate_causal: bool = False
  cross_mlp: bool = False
  final_norm: bool = True

  @nn.compact
  def __call__(
    self,
    x: Tokens,
    mask: Bool[Array, "batch length"] | None = None,
    context: Encoded | None = None,
    *,
    causal: bool,
    rng: Rngs = None,
    cache: Cache | None = None,
    pairs: Bool[Array, "depth longest longest"] | None = None,
    before: Before | None = None,
  ) -> tuple[Tokens, Cache | None]:
    """Applies the stack.

    Args:
      x: embedded tokens. With a cache, the tokens that follow the cached ones (one or more).
      mask: True for each token of `x` that may be read. Must be None with a cache, where real tokens come first.
      context: encoded tokens for cross-attention; None if there are none, or if the cache already holds them.
      causal: if True, a token reads only itself and earlier tokens. Must be True with a cache.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      cache: from `empty_cache` or from the previous call; None: no cache.
      pairs: for each block, True for a position (row) and a position that it may read (column). They are as many as
        the longest sequence has. A causal stack reads no later token besides. None: all.
      before: function of (number of a block, its input) that changes the input. None: the input stays as it is.
    Returns: the tokens, and the updated cache (None without `cache`).
    Raises:
      ValueError: `cache` is given with `causal=False` or with a `mask`, or `before` with `config.scan`.
    """
    c = self.config
    if before is not None and c.scan:
      raise ValueError("a decoder whose blocks differ cannot be scanned: set scan=False")
    x = x.astype(c.dtype)
    if c.input_norm:
      x = norm_layer(c, "input_norm")(x)
    x = dropout(x, rate=c.dropout, rng=fold_in(rng, c.depth))  # the streams before belong to the blocks
    tokens, context_mask = (None, None) if context is None else (context.tokens, context.mask)
    far = (c.relative_buckets, c.relative_distance, causal)
    biases = RelativeBias(c.num_heads, *far, name="relative_bias") if c.relative_buckets else None
    if cache is not None:
      if not causal or mask is not None:
        raise ValueError("a decoder with a cache must be causal and unmasked: pass causal=True and mask=None")
      x, cache = self._step(x, tokens, context_mask, cache, pairs, biases, before)
    else:
      length = x.shape[1]
      own = None if pairs is None else pairs[:, :length, :length]
      bias = None if biases is None else biases(length)
      reading = Reading(mask, tokens, context_mask, rotation=c.rotation(length), bias=bias)
      x = self._stack(x, reading, causal, rng, own, before)
    return (norm_layer(c, "norm")(x) if c.norm != "post" and self.final_norm else x), cache

  @nn.nowrap
  def _kind(self) -> tuple[bool, bool]:
    return self.separate_causal, self.cross_mlp

  @nn.nowrap
  def _stack(
    self, x: Tokens, reading: Reading, causal: bool, rng: Rngs, pairs: Array | None, before: Before | None
  ) -> Tokens:
    c = self.config
    block = rematerialised(DecoderBlock, c.remat, scan=c.scan)
    if not c.scan:
      for layer in range(c.depth):
        own = reading if pairs is None else dataclasses.replace(reading, pairs=pairs[layer])
        x = x if before is None else before(layer, x)
        x, _ = block(c, causal, *self._kind(), name=f"block_{layer}")(x, own, rng, jnp.asarray(layer))
      return x
    scanned = nn.scan(
      lambda module, carry, at: module(carry, dataclasses.replace(reading, pairs=at[1]), rng, at[0]),
      variable_axes={"params": 0, "intermediates": 0, "perturbations": 0},
      split_rngs={"params": True},
      length=c.depth,
      check_constancy_invariants=False,  # there is nothing to check, and the block would be traced once more
    )
    return scanned(block(c, causal, *self._kind(), name="blocks"), x, (jnp.arange(c.depth), pairs))[0]

  @nn.nowrap
  def _step(
    self,
    x: Tokens,
    context: Array | None,
    context_mask: Array | None,
    cache: Cache,
    pairs: Array | None,
    biases: RelativeBias | None,
    before: Before | None,
  ) -> tuple[Tokens, Cache]:
    mask = cache.context_mask if context is None else context_mask
    rotation = self.config.rotation(x.shape[1], cache.length)
    bias = None if biases is None else biases(cache.capacity, cache.places(x.shape[1]))
    reading, memories = Reading(None, context, mask, cache.length, rotation, bias=bias), []
    for layer, memory in enumerate(cache.layers):
      own = reading if pairs is None else dataclasses.replace(reading, pairs=pairs[layer])
      x = x if before is None else before(layer, x)
      x, memory = self._layer(layer)(x, own, None, jnp.asarray(layer), memory)
      memories.append(memory)
    return x, Cache(cache.length + x.shape[1], tuple(memories), mask)

  @nn.nowrap
  def _layer(self, layer: int) -> Callable[..., Any]:
    """One causal block of a cached step.

    A scanned stack is split into blocks, because a loop over it would copy every layer's cache in each step.
    """
    c = self.config
    if not c.scan:
      return DecoderBlock(c, True, *self._kind(), name=f"block_{layer}")
    params = jax.tree.map(lambda stacked: stacked[layer], self.variables["params"]["blocks"])
    block = DecoderBlock(c, True, *self._kind(), parent=None)
    return lambda *args: block.apply({"params": params}, *args)
