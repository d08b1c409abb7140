"""Self-attention and cross-attention with causal and padding masks, for every platform."""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float

from mmjax.nn.dense import Dense, DenseParameters, Initializer, matmul
from mmjax.nn.forms import by_platform
from mmjax.nn.initial import InitScheme, kernel_init
from mmjax.nn.norm import LayerNorm
from mmjax.nn.rotary import Rotation, rotate
from mmjax.nn.tpu import ROWS, on_tpu

Implementation = Literal["auto", "xla", "cudnn"]
Biased = Literal["all", "query_value", "none", "only"]
Residuals = tuple[Array, Array, Array, Array, Array | None]


def _allowed(mask: Array | None, *, causal: bool, shape: tuple[int, int]) -> Array | None:
  """Mask of the keys that each query may read, [batch or 1, 1, q or 1, k]; None if every query reads every key."""
  keys = None if mask is None else mask[:, None, None, :]
  if not causal:
    return keys
  before = jnp.tril(jnp.ones(shape, bool))[None, None]
  return before if keys is None else before & keys


def _weights(query: Array, key: Array, allowed: Array | None, bias: Array | None = None) -> Array:
  """Attention weights (softmax) in float32. A query that may read no key gets zeros."""
  logits = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
  if bias is not None:
    logits = logits + bias * query.shape[-1] ** 0.5  # the scale below undoes the factor
  if allowed is not None:
    logits = jnp.where(allowed, logits, jnp.finfo(jnp.float32).min)
  # The scale is applied after the subtraction, in the same pass as the exponential. The differences are exact.
  weights = jnp.exp((logits - logits.max(-1, keepdims=True)) * query.shape[-1] ** -0.5)
  if allowed is not None:
    weights = jnp.where(allowed, weights, 0.0)
  return weights * (1.0 / jnp.maximum(weights.sum(-1, keepdims=True), jnp.finfo(jnp.float32).tiny))


def attention_weights(
  query: Float[Array, "batch q heads dim"],
  key: Float[Array, "batch k heads dim"],
  *,
  mask: Bool[Array, "batch k"] | None = None,
  causal: bool = False,
  bias: Float[Array, "#batch heads q k"] | None = None,
) -> Float[Array, "batch heads q k"]:
  """Attention weights, in float32.

  `attention` multiplies the values by these weights.

  Args:
    query: queries.
    key: keys.
    mask: True for each key that may be read. A query that may read no key gets zeros.
    causal: if True, query i reads only keys 0 to i.
    bias: added to the scaled logits.
  Returns: the weights of the keys, for each query.
  """
  allowed = _allowed(mask, causal=causal, shape=(query.shape[1], key.shape[1]))
  return _weights(rearrange(query, "b l h d -> b h l d"), rearrange(key, "b l h d -> b h l d"), allowed, bias)


@jax.custom_vjp
def attention_by_hand(
  query: Float[Array, "batch heads q dim"],
  key: Float[Array, "batch heads k dim"],
  value: Float[Array, "batch heads k dim"],
  allowed: Bool[Array, "#batch 1 #q k"] | None,
  bias: Float[Array, "#batch heads q k"] | None = None,
) -> Float[Array, "batch heads q dim"]:
  """Softmax attention with a hand-written gradient, the fastest form for XLA's CPU backend.

  Args:
    query: queries, heads first.
    key: keys, heads first.
    value: values, heads first.
    allowed: True where a query may read a key. None if every query reads every key. A query that may read no key gets
      zeros.
    bias: added to the scaled logits.
  Returns: the attention output, in the dtype of `value`.
  """
  return _by_hand_forward(query, key, value, allowed, bias)[0]


def _by_hand_forward(
  query: Array, key: Array, value: Array, allowed: Array | None, bias: Array | None = None
) -> tuple[Array, Residuals]:
  weights = _weights(query, key, allowed, bias).astype(value.dtype)
  out = jnp.einsum("bhqk,bhkd->bhqd", weights, value, preferred_element_type=jnp.float32)
  return out.astype(value.dtype), (query, key, value, weights, bias)


def _by_hand_backward(residuals: Residuals, g: Array) -> tuple[Array, Array, Array, None, Array | None]:
  query, key, value, weights, bias = residuals
  dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  dvalue = dot("bhqk,bhqd->bhkd", weights, g)
  dweights = dot("bhqd,bhkd->bhqk", g, value)
  w32 = weights.astype(jnp.float32)
  dscaled = w32 * (dweights - (dweights * w32).sum(-1, keepdims=True))
  dlogits = (dscaled * query.shape[-1] ** -0.5).astype(query.dtype)
  dquery, dkey = dot("bhqk,bhkd->bhqd", dlogits, key), dot("bhqk,bhqd->bhkd", dlogits, query)
  dbias = None
  if bias is not None:
    dbias = dscaled if bias.shape[0] == dscaled.shape[0] else dscaled.sum(0, keepdims=True)
    dbias = dbias.astype(bias.dtype)
  return dquery.astype(query.dtype), dkey.astype(key.dtype), dvalue.astype(value.dtype), None, dbias


attention_by_hand.defvjp(_by_hand_forward, _by_hand_backward)


def _attention_cpu(
  query: Array, key: Array, value: Array, mask: Array | None, bias: Array | None, *, causal: bool
) -> Array:
  allowed = _allowed(mask, causal=causal, shape=(query.shape[1], key.shape[1]))
  heads_first = [rearrange(x, "b l h d -> b h l d") for x in (query, key, value)]
  return rearrange(attention_by_hand(*heads_first, allowed, bias), "b h l d -> b l h d")


def _attention_jax(
  query: Array,
  key: Array,
  value: Array,
  mask: Array | None,
  bias: Array | None,
  *,
  causal: bool,
  implementation: Implementation,
) -> Array:
  with jax.numpy_dtype_promotion("standard"):  # JAX's implementation promotes bfloat16 to float32 implicitly
    out = jax.nn.dot_product_attention(
      query,
      key,
      value,
      bias=bias,
      mask=None if mask is None else mask[:, None, None, :],
      is_causal=causal,
      implementation=None if implementation == "auto" else implementation,
    )
  if mask is None:
    return out
  seen = jnp.cumsum(mask, axis=1)[:, : query.shape[1]] > 0 if causal else mask.any(1, keepdims=True)
  return jnp.where(seen[:, :, None, None], out, jnp.zeros((), out.dtype))


def attention(
  query: Float[Array, "batch q heads dim"],
  key: Float[Array, "batch k heads dim"],
  value: Float[Array, "batch k heads dim"],
  *,
  mask: Bool[Array, "batch k"] | None = None,
  causal: bool = False,
  bias: Float[Array, "#batch heads q k"] | None = None,
  implementation: Implementation = "auto",
) -> Float[Array, "batch q heads dim"]:
  """softmax(query key^T / sqrt(dim)) value (Vaswani et al. 2017, equation 1), with the softmax in float32.

  Args:
    query: queries.
    key: keys.
    value: values.
    mask: True for each key that may be read. A query that may read no key gets zeros, and its gradients are finite.
    causal: if True, query i reads only keys 0 to i.
    bias: added to the scaled logits, such as a bias for each distance of query and key.
    implementation: "xla", "cudnn" (flash attention on NVIDIA GPUs) or "auto". "auto" is `attention_by_hand` on a CPU.
      On other platforms it is the default of `jax.nn.dot_product_attention`, which is XLA in JAX 0.12.
  Returns: the attention output.

  Example:
    >>> import jax.numpy as jnp
    >>> from mmjax.nn import attention
    >>> x = jnp.ones((2, 5, 4, 8))  # batch, length, heads, dim
    >>> attention(x, x, x, causal=True).shape
    (2, 5, 4, 8)
  """
  default = functools.partial(_attention_jax, causal=causal, implementation=implementation)
  if implementation != "auto":
    return default(query, key, value, mask, bias)
  cpu = functools.partial(_attention_cpu, causal=causal)
  return by_platform(query, key, value, mask, bias, cpu=cpu, default=default)


def _weighted_sum(
  weights: Float[Array, "batch heads q k"], value: Float[Array, "batch k heads dim"]
) -> Float[Array, "batch q heads dim"]:
  out = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
  return out.astype(value.dtype)


def may_have_kernel(layer: nn.Module, *, qk_norm: bool, implementation: Implementation) -> bool:
  """True if a layer may use the TPU kernel: "auto", no QK norm, and attention weights are not recorded.

  Sizes are checked by `has_kernel`.
  """
  return implementation == "auto" and not qk_norm and not layer.is_mutable_collection("intermediates")


def has_kernel(length: int, width: int, heads: int, dtype: str) -> bool:
  """True if self-attention is traced for a TPU and the TPU kernel supports these sizes.

  Args:
    length: tokens per example.
    width: width of the tokens.
    heads: number of attention heads.
    dtype: compute dtype.
  Returns: False on other platforms and outside shard_map (see `mmjax.nn.tpu.on_tpu`).
  """
  if not on_tpu():
    return False
  from mmjax.nn.attention_tpu import chip_memory, fits_kernel

  return fits_kernel(length, width, heads, itemsize=jnp.dtype(dtype).itemsize, memory=chip_memory())


def padding(length: int, width: int, heads: int, dtype: str) -> int:
  """Number of tokens to add to each example so that self-attention can use the TPU kernel.

  The kernel works on whole tiles of 8 rows. Eight examples of an odd length fill whole tiles, which may be too large
  for the kernel. With up to seven more tokens, one example fills whole tiles.

  Args:
    length: tokens per example.
    width: width of the tokens.
    heads: number of attention heads.
    dtype: compute dtype.
  Returns: 0 if the kernel supports `length` itself, or if padding does not help.
  """
  more = -length % ROWS
  without = has_kernel(length, width, heads, dtype)
  return more if not without and has_kernel(length + more, width, heads, dtype) else 0


class Projections(nn.Module):
  """Projections of multi-head attention, shared by `MultiHeadAttention` and `CachedAttention`.

  Parameters: query, key, value, out (Dense). With `qk_norm` also query_norm and key_norm: scales over the head
  dimension, shared by the heads (Dehghani et al. 2023, section 2). With `out_norm` also norm.

  Attributes:
    num_heads: number of heads; must divide the width of `x`.
    qk_norm: if True, normalise queries and keys, which keeps attention logits from growing.
    out_init: initialiser of the output projection.
    dtype: compute dtype.
    implementation: see `attention`.
    epsilon: added to the variance in the norms of queries and keys.
    init_scheme: initialiser of the other projections (see `TransformerConfig.init_scheme`).
    head_dim: dimension of a head. None: width / num_heads.
    use_bias: if True, the projections have biases.
    scaled: if True, divide the logits by sqrt(head_dim). False: T5.
    biased: projections with a bias, of query, key and value (see `TransformerConfig.attention_bias`).
    out_norm: if True, normalise the input of the output projection.
    key_heads: number of heads of keys and values, each for several heads of queries. None: num_heads.
  """

  num_heads: int
  qk_norm: bool
  out_init: Initializer
  dtype: str
  implementation: Implementation
  epsilon: float
  init_scheme: InitScheme = "clip"
  head_dim: int | None = None
  use_bias: bool = True
  scaled: bool = True
  biased: Biased = "all"
  out_norm: bool = False
  key_heads: int | None = None

  @nn.nowrap
  def _has_bias(self, name: str) -> bool:
    if self.biased == "only":
      return True
    return self.use_bias and (self.biased == "all" or (self.biased == "query_value" and name != "key"))

  @nn.nowrap
  def _project(
    self, name: str, tokens: Float[Array, "batch*length width"], width: int, *, batch: int
  ) -> Float[Array, "batch length heads dim"]:
    if self.head_dim is not None:
      width = self.num_heads * self.head_dim
    if width % self.num_heads:
      raise ValueError(f"width {width} is not divisible by num_heads {self.num_heads}")
    number = self.num_heads if name == "query" else self.key_heads or self.num_heads
    width = width // self.num_heads * number
    init = kernel_init(self.init_scheme, tokens.shape[-1] ** -0.5)  # CLIP's attn_std
    projected = Dense(width, init, self._has_bias(name), self.dtype, name=name)(tokens)
    heads = rearrange(projected, "(b l) (h d) -> b l h d", b=batch, h=number)
    if not self.scaled and name == "query":
      heads = heads * heads.shape[-1] ** 0.5  # attention divides by it
    if self.qk_norm and name != "value":
      heads = LayerNorm(self.epsilon, use_bias=False, name=f"{name}_norm")(heads)
    return heads

  @nn.nowrap
  def _combine(
    self, heads: Float[Array, "batch*length heads*dim"], width: int, *, batch: int
  ) -> Float[Array, "batch length width"]:
    heads = checkpoint_name(heads, "attention")
    if self.out_norm:
      heads = LayerNorm(self.epsilon, name="norm")(heads)
    out = Dense(width, self.out_init, use_bias=self.use_bias, dtype=self.dtype, name="out")(heads)
    return rearrange(out, "(b l) w -> b l w", b=batch)


class MultiHeadAttention(Projections):
  """Multi-head attention: self-attention over `x`, or cross-attention from `x` to `context`."""

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "batch length width"],
    context: Float[Array, "batch k context_width"] | None = None,
    *,
    mask: Bool[Array, "batch k"] | None = None,
    causal: bool = False,
    bias: Float[Array, "#batch heads length k"] | None = None,
    rotations: tuple[Rotation, Rotation] | None = None,
    factors: Float[Array, "batch heads length k"] | None = None,
  ) -> Float[Array, "batch length width"]:
    """Applies attention and the output projection.

    Args:
      x: tokens that the queries are computed from.
      context: tokens that the keys and values are computed from; None: `x`.
      mask: True for each token of `context` (or of `x`) that may be read.
      causal: if True, query i reads only keys 0 to i.
      bias: added to the scaled logits.
      rotations: rotations of the queries and of the keys (rotary position embedding).
      factors: multiplied with the attention weights (dropout).
    Returns: one vector for each token of `x`.
    Raises:
      ValueError: num_heads does not divide the width of `x`.
    """
    batch, length, width = x.shape
    own = rearrange(x, "b l w -> (b l) w")
    plain = context is None and bias is None and rotations is None and factors is None
    if plain and self._is_for_kernel(length, width):
      from mmjax.nn.attention_tpu import self_attention

      projected, bias = self._project_together(own)
      out = self_attention(projected, bias, mask, batch=batch, heads=self.num_heads, causal=causal)
      return self._combine(out, width, batch=batch)
    read = own if context is None else rearrange(context, "b k w -> (b k) w")
    query = self._project("query", own, width, batch=batch)
    key, value = (self._project(name, read, width, batch=batch) for name in ("key", "value"))
    if rotations is not None:
      query, key = rotate(query, rotations[0]), rotate(key, rotations[1])
    if self.key_heads is not None:
      key, value = (jnp.repeat(heads, self.num_heads // self.key_heads, axis=2) for heads in (key, value))
    if factors is not None:
      weights = attention_weights(query, key, mask=mask, causal=causal, bias=bias)
      heads = _weighted_sum(weights * factors, value)
    elif self.is_mutable_collection("intermediates"):  # the caller wants the attention weights
      heads = self._shown(query, key, value, mask, causal, bias)
    else:
      heads = attention(query, key, value, mask=mask, causal=causal, bias=bias, implementation=self.implementation)
    return self._combine(rearrange(heads, "b l h d -> (b l) (h d)"), width, batch=batch)

  @nn.nowrap
  def _is_for_kernel(self, length: int, width: int) -> bool:
    plain = self.head_dim is None and self.key_heads is None and self.use_bias and self.scaled
    allowed = plain and may_have_kernel(self, qk_norm=self.qk_norm, implementation=self.implementation)
    return allowed and has_kernel(length, width, self.num_heads, self.dtype)

  @nn.nowrap
  def _project_together(
    self, tokens: Float[Array, "tokens width"]
  ) -> tuple[Float[Array, "tokens 3*width"], Float[Array, "3*width"]]:
    """Queries, keys and values from one matrix product, which reads the tokens once, and their bias, not yet added."""
    width = tokens.shape[-1]
    init = kernel_init(self.init_scheme, width**-0.5)
    names = ("query", "key", "value")
    parameters = [DenseParameters(width, init, self._has_bias(name), name=name)(width) for name in names]
    kernel, bias = (jnp.concatenate(parts, axis=-1) for parts in zip(*parameters, strict=True))
    return matmul(tokens, kernel, jnp.dtype(self.dtype)), bias

  @nn.nowrap
  def _shown(
    self, query: Array, key: Array, value: Array, mask: Array | None, causal: bool, bias: Array | None
  ) -> Float[Array, "batch q heads dim"]:
    """Attention that also records its weights, for `mmjax.evaluate.attention_maps`.

    The weights are sown in "intermediates" and are perturbations, so that their gradients can be computed. Their name
    contains the number of queries, because a transformer calls its last block twice: for one token and for all tokens.
    """
    name = f"weights_{query.shape[1]}"
    weights = self.perturb(name, attention_weights(query, key, mask=mask, causal=causal, bias=bias))
    self.sow("intermediates", name, weights)
    return _weighted_sum(weights, value)
