"""The transformer of decoders: self-attention, causal or not; cross-attention, where there is something to read."""

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
from mmjax.nn.mlp import MLP
from mmjax.nn.norm import LayerNorm
from mmjax.nn.stochastic import Rngs, drop_path, fold_in
from mmjax.nn.transformer import TransformerConfig, rematerialised
from mmjax.types import Encoded

Tokens = Float[Array, "batch length width"]
Remembered = KeyValue | None


@flax.struct.dataclass
class Reading:
  """What every block of a stack may read.

  Attributes:
    mask: which of its own tokens; None: all.
    context: tokens of another modality or text, for cross-attention.
    context_mask: which of those.
    start: in a cached step, the place of the first new token in each row.
  """

  mask: Bool[Array, "batch length"] | None = None
  context: Float[Array, "batch k context_width"] | None = None
  context_mask: Bool[Array, "batch k"] | None = None
  start: Int[Array, "batch"] | None = None


class DecoderBlock(nn.Module):
  """Self-attention, then attention over the context if there is one, then the MLP; pre- or post-norm.

  Parameters: attention, cross_attention, mlp; their norms norm1, norm_cross, norm2; causal_attention, if it is
  separate; norm_context, cross_mlp and norm_cross_mlp, if there is a cross_mlp. What a mode does not use it does not
  create.

  Attributes:
    config: the stack's.
    causal: a token reads only itself and earlier ones.
    separate_causal: causal self-attention has weights of its own (BLIP, Li et al. 2022, section 3.1).
    cross_mlp: cross-attention follows the MLP, as a block of its own: with a norm of the context, and an MLP after it
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
    """The tokens and, where there is a `memory`, what to remember from now on."""
    c = self.config
    rng = fold_in(rng, layer)
    rate = c.drop_path * layer.astype(jnp.float32) / max(1, c.depth - 1)

    def add(x: Tokens, name: str, stream: int, branch: Callable[[Tokens], tuple[Array, Remembered]]) -> Any:
      norm = LayerNorm(c.norm_epsilon, name=name)
      y, remembered = branch(norm(x) if c.norm == "pre" else x)
      x = x + (drop_path(y, rate=rate, rng=fold_in(rng, stream)) if c.drop_path else y)
      return (x if c.norm == "pre" else norm(x)), remembered

    def think(x: Tokens, name: str, stream: int, norm: str) -> Tokens:
      mlp = MLP(c.hidden, c.activation, self._out_init(), c.dtype, name=name)
      return add(x, norm, stream, lambda y: (mlp(y), None))[0]

    known = None if memory is None else memory.context
    x, own = add(x, "norm1", 0, lambda y: self._read_own(y, reading, memory))
    if self.cross_mlp:
      x = think(x, "mlp", 2, "norm2")
    if known is not None or reading.context is not None:
      x, known = add(x, "norm_cross", 1, lambda y: self._read_context(y, reading, memory))
      x = think(x, "cross_mlp", 3, "norm_cross_mlp") if self.cross_mlp else x
    x = x if self.cross_mlp else think(x, "mlp", 2, "norm2")
    return x, None if own is None else LayerMemory(own, known)

  @nn.nowrap
  def _read_own(self, y: Tokens, reading: Reading, memory: LayerMemory | None) -> tuple[Tokens, Remembered]:
    name = "causal_attention" if self.causal and self.separate_causal else "attention"
    if memory is None:
      return MultiHeadAttention(**self._fields(), name=name)(y, mask=reading.mask, causal=self.causal), None
    return CachedAttention(**self._fields(), name=name)(y, memory.own, start=reading.start)

  @nn.nowrap
  def _read_context(self, y: Tokens, reading: Reading, memory: LayerMemory | None) -> tuple[Tokens, Remembered]:
    name, mask, context = "cross_attention", reading.context_mask, reading.context
    if self.cross_mlp and context is not None:
      context = LayerNorm(self.config.norm_epsilon, name="norm_context")(context)
    if memory is None:
      return MultiHeadAttention(**self._fields(), name=name)(y, context, mask=mask), None
    known = memory.context if context is None else None
    return CachedAttention(**self._fields(), name=name)(y, known, context=context, mask=mask)

  @nn.nowrap
  def _fields(self) -> dict[str, Any]:
    c = self.config
    fields = dict(num_heads=c.num_heads, qk_norm=c.qk_norm, dtype=c.dtype, implementation=c.attention)
    return fields | dict(out_init=self._out_init(), epsilon=c.norm_epsilon)

  @nn.nowrap
  def _out_init(self) -> nn.initializers.Initializer:
    # Projections that write into the residual stream begin smaller in a deeper network (GPT-2), as in `Block`.
    return nn.initializers.normal(self.config.width**-0.5 * (2 * self.config.depth) ** -0.5)


class Decoder(nn.Module):
  """A stack of decoder blocks, followed by a layer norm where they are pre-norm and `final_norm` is set.

  One stack can be called in several modes, which share every parameter but those that only one of them has: without
  and with a context (cross-attention's), causal and not (nothing, or with `separate_causal` self-attention's).

  Parameters: block_0, block_1, ... or, with `config.scan`, one `blocks` with a leading layer axis; norm (pre-norm
  only); input_norm, if the configuration has it.

  Attributes:
    config: the stack's.
    separate_causal, cross_mlp: of its blocks.
    final_norm: whether the stack ends in a norm; where another stack goes on, it may not.
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
  ) -> tuple[Tokens, Cache | None]:
    """The tokens as each sees what it may read, and with `cache` the cache that knows them too.

    Args:
      x: embedded tokens; with a cache, those that follow what it holds (one, or many at once).
      mask: which of them may be read; with a cache, real tokens come first, and there is none.
      context: what cross-attention reads; None: there is none, or the cache knows it already.
      causal: a token reads itself and earlier ones only, as it must with a cache.
      rng: a key per example, for stochastic depth.
      cache: from `empty_cache`, or the last call.
    """
    c = self.config
    x = x.astype(c.dtype)
    if c.input_norm:
      x = LayerNorm(c.norm_epsilon, name="input_norm")(x)
    tokens, context_mask = (None, None) if context is None else (context.tokens, context.mask)
    if cache is not None:
      if not causal or mask is not None:
        raise ValueError("a cache holds what a causal decoder has read: it needs causal=True and mask=None")
      x, cache = self._step(x, tokens, context_mask, cache)
    else:
      x = self._stack(x, Reading(mask, tokens, context_mask), causal, rng)
    return (LayerNorm(c.norm_epsilon, name="norm")(x) if c.norm == "pre" and self.final_norm else x), cache

  @nn.nowrap
  def _kind(self) -> tuple[bool, bool]:
    return self.separate_causal, self.cross_mlp

  @nn.nowrap
  def _stack(self, x: Tokens, reading: Reading, causal: bool, rng: Rngs) -> Tokens:
    c = self.config
    block = rematerialised(DecoderBlock, c.remat, scan=c.scan)
    if not c.scan:
      for layer in range(c.depth):
        x, _ = block(c, causal, *self._kind(), name=f"block_{layer}")(x, reading, rng, jnp.asarray(layer))
      return x
    scanned = nn.scan(
      lambda module, carry, layer: module(carry, reading, rng, layer),
      variable_axes={"params": 0, "intermediates": 0, "perturbations": 0},
      split_rngs={"params": True},
      length=c.depth,
    )
    return scanned(block(c, causal, *self._kind(), name="blocks"), x, jnp.arange(c.depth))[0]

  @nn.nowrap
  def _step(self, x: Tokens, context: Array | None, context_mask: Array | None, cache: Cache) -> tuple[Tokens, Cache]:
    mask = cache.context_mask if context is None else context_mask
    reading, memories = Reading(None, context, mask, cache.length), []
    for layer, memory in enumerate(cache.layers):
      x, memory = self._layer(layer)(x, reading, None, jnp.asarray(layer), memory)
      memories.append(memory)
    return x, Cache(cache.length + x.shape[1], tuple(memories), mask)

  @nn.nowrap
  def _layer(self, layer: int) -> Callable[..., Any]:
    """One causal block. A scanned stack is taken apart: a loop over it would copy every layer's cache in each step."""
    c = self.config
    if not c.scan:
      return DecoderBlock(c, True, *self._kind(), name=f"block_{layer}")
    params = jax.tree.map(lambda stacked: stacked[layer], self.variables["params"]["blocks"])
    block = DecoderBlock(c, True, *self._kind(), parent=None)
    return lambda *args: block.apply({"params": params}, *args)
