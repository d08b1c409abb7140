"""One attention for everything: self and cross, causal or not, padded or not, on every platform."""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Bool, Float

from mmjax.nn.dense import Dense, DenseParameters, Initializer, matmul
from mmjax.nn.norm import LayerNorm
from mmjax.nn.tpu import ROWS, on_tpu

Implementation = Literal["auto", "xla", "cudnn"]
Residuals = tuple[Array, Array, Array, Array]


def _allowed(mask: Array | None, *, causal: bool, shape: tuple[int, int]) -> Array | None:
  """Which key each query may read, [batch or 1, 1, q, k]; None where every query may read every key."""
  keys = None if mask is None else mask[:, None, None, :]
  if not causal:
    return keys
  before = jnp.tril(jnp.ones(shape, bool))[None, None]
  return before if keys is None else before & keys


def _weights(query: Array, key: Array, allowed: Array | None) -> Array:
  """The softmax, float32; all zeros for a query that may read nothing."""
  logits = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
  if allowed is not None:
    logits = jnp.where(allowed, logits, jnp.finfo(jnp.float32).min)
  # The scale is applied to the differences, which are exact, in the same pass as the exponential.
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
) -> Float[Array, "batch heads q k"]:
  """What `attention` multiplies the values with, float32; arguments as there."""
  allowed = _allowed(mask, causal=causal, shape=(query.shape[1], key.shape[1]))
  return _weights(rearrange(query, "b l h d -> b h l d"), rearrange(key, "b l h d -> b h l d"), allowed)


@jax.custom_vjp
def attention_by_hand(
  query: Float[Array, "batch heads q dim"],
  key: Float[Array, "batch heads k dim"],
  value: Float[Array, "batch heads k dim"],
  allowed: Bool[Array, "#batch 1 #q k"] | None,
) -> Float[Array, "batch heads q dim"]:
  """Softmax attention with its gradient written out, which is what XLA's CPU backend runs fastest."""
  return _by_hand_forward(query, key, value, allowed)[0]


def _by_hand_forward(query: Array, key: Array, value: Array, allowed: Array | None) -> tuple[Array, Residuals]:
  weights = _weights(query, key, allowed).astype(value.dtype)
  out = jnp.einsum("bhqk,bhkd->bhqd", weights, value, preferred_element_type=jnp.float32)
  return out.astype(value.dtype), (query, key, value, weights)


def _by_hand_backward(residuals: Residuals, g: Array) -> tuple[Array, Array, Array, None]:
  query, key, value, weights = residuals
  dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
  dvalue = dot("bhqk,bhqd->bhkd", weights, g)
  dweights = dot("bhqd,bhkd->bhqk", g, value)
  w32 = weights.astype(jnp.float32)
  dlogits = w32 * (dweights - (dweights * w32).sum(-1, keepdims=True)) * query.shape[-1] ** -0.5
  dlogits = dlogits.astype(query.dtype)
  dquery, dkey = dot("bhqk,bhkd->bhqd", dlogits, key), dot("bhqk,bhqd->bhkd", dlogits, query)
  return dquery.astype(query.dtype), dkey.astype(key.dtype), dvalue.astype(value.dtype), None


attention_by_hand.defvjp(_by_hand_forward, _by_hand_backward)


def _attention_cpu(query: Array, key: Array, value: Array, mask: Array | None, *, causal: bool) -> Array:
  allowed = _allowed(mask, causal=causal, shape=(query.shape[1], key.shape[1]))
  heads_first = [rearrange(x, "b l h d -> b h l d") for x in (query, key, value)]
  return rearrange(attention_by_hand(*heads_first, allowed), "b h l d -> b l h d")


def _attention_jax(
  query: Array, key: Array, value: Array, mask: Array | None, *, causal: bool, implementation: Implementation
) -> Array:
  with jax.numpy_dtype_promotion("standard"):  # JAX's own code promotes bfloat16 to float32 implicitly
    out = jax.nn.dot_product_attention(
      query,
      key,
      value,
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
  implementation: Implementation = "auto",
) -> Float[Array, "batch q heads dim"]:
  """softmax(query key^T / sqrt(dim)) value (Vaswani et al. 2017, equation 1), softmax in float32.

  Args:
    mask: True where a key may be read. A query that may read no key at all gets zeros, and finite gradients.
    causal: a query reads only keys at its own place and before.
    implementation: "xla", "cudnn" (flash attention on NVIDIA GPUs), or "auto" (the platform's best).
  """
  default = functools.partial(_attention_jax, causal=causal, implementation=implementation)
  if implementation != "auto":
    return default(query, key, value, mask)
  cpu = functools.partial(_attention_cpu, causal=causal)
  return lax.platform_dependent(query, key, value, mask, cpu=cpu, default=default)


def may_have_kernel(layer: nn.Module, *, qk_norm: bool, implementation: Implementation) -> bool:
  """Whether a layer's self-attention can be the kernel's at any size: that normalises nothing and shows no weights."""
  return implementation == "auto" and not qk_norm and not layer.is_mutable_collection("intermediates")


def has_kernel(length: int, width: int, heads: int, dtype: str) -> bool:
  """Whether self-attention traced here is a TPU's, of sizes that its kernel serves."""
  if not on_tpu():
    return False
  from mmjax.nn.attention_tpu import chip_memory, fits_kernel

  return fits_kernel(length, width, heads, itemsize=jnp.dtype(dtype).itemsize, memory=chip_memory())


def padding(length: int, width: int, heads: int, dtype: str) -> int:
  """Tokens to add to each example for attention to have a kernel, which odd lengths may make too large.

  Eight examples of an odd length fill whole tiles; one example does so with up to seven tokens more.
  """
  more = -length % ROWS
  without = has_kernel(length, width, heads, dtype)
  return more if not without and has_kernel(length + more, width, heads, dtype) else 0


class Projections(nn.Module):
  """The projections of multi-head attention: what `MultiHeadAttention` and its cached kin have in common.

  Parameters: query, key, value, out (Dense); with `qk_norm` also query_norm and key_norm (scales over the
  head's dimension, shared by the heads; Dehghani et al. 2023, section 2).

  Attributes:
    num_heads: must divide the width of `x`.
    qk_norm: normalise queries and keys, which keeps attention logits from growing.
    out_init: initialiser of the output projection.
    dtype: compute dtype.
    implementation: see `attention`.
    epsilon: of the norms.
  """

  num_heads: int
  qk_norm: bool
  out_init: Initializer
  dtype: str
  implementation: Implementation
  epsilon: float

  @nn.nowrap
  def _project(
    self, name: str, tokens: Float[Array, "batch*length width"], width: int, *, batch: int
  ) -> Float[Array, "batch length heads dim"]:
    if width % self.num_heads:
      raise ValueError(f"width {width} is not divisible by num_heads {self.num_heads}")
    init = nn.initializers.normal(tokens.shape[-1] ** -0.5)  # CLIP's attn_std
    projected = Dense(width, init, dtype=self.dtype, name=name)(tokens)
    heads = rearrange(projected, "(b l) (h d) -> b l h d", b=batch, h=self.num_heads)
    if self.qk_norm and name != "value":
      heads = LayerNorm(self.epsilon, use_bias=False, name=f"{name}_norm")(heads)
    return heads

  @nn.nowrap
  def _combine(self, heads: Float[Array, "batch*length width"], *, batch: int) -> Float[Array, "batch length width"]:
    width = heads.shape[-1]
    out = Dense(width, self.out_init, dtype=self.dtype, name="out")(checkpoint_name(heads, "attention"))
    return rearrange(out, "(b l) w -> b l w", b=batch)


class MultiHeadAttention(Projections):
  """Multi-head attention of `x` over `context` (over itself where there is none); arguments as for `attention`."""

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "batch length width"],
    context: Float[Array, "batch k context_width"] | None = None,
    *,
    mask: Bool[Array, "batch k"] | None = None,
    causal: bool = False,
  ) -> Float[Array, "batch length width"]:
    batch, length, width = x.shape
    own = rearrange(x, "b l w -> (b l) w")
    if context is None and self._is_for_kernel(length, width):
      from mmjax.nn.attention_tpu import self_attention

      projected, bias = self._project_together(own)
      out = self_attention(projected, bias, mask, batch=batch, heads=self.num_heads, causal=causal)
      return self._combine(out, batch=batch)
    read = own if context is None else rearrange(context, "b k w -> (b k) w")
    query = self._project("query", own, width, batch=batch)
    key, value = (self._project(name, read, width, batch=batch) for name in ("key", "value"))
    if self.is_mutable_collection("intermediates"):  # somebody wants to see where it looks
      heads = self._shown(query, key, value, mask, causal)
    else:
      heads = attention(query, key, value, mask=mask, causal=causal, implementation=self.implementation)
    return self._combine(rearrange(heads, "b l h d -> (b l) (h d)"), batch=batch)

  @nn.nowrap
  def _is_for_kernel(self, length: int, width: int) -> bool:
    allowed = may_have_kernel(self, qk_norm=self.qk_norm, implementation=self.implementation)
    return allowed and has_kernel(length, width, self.num_heads, self.dtype)

  @nn.nowrap
  def _project_together(
    self, tokens: Float[Array, "tokens width"]
  ) -> tuple[Float[Array, "tokens 3*width"], Float[Array, "3*width"]]:
    """Queries, keys and values in one product, which reads the tokens once; and the bias they still need."""
    width = tokens.shape[-1]
    init = nn.initializers.normal(width**-0.5)
    parameters = [DenseParameters(width, init, name=name)(width) for name in ("query", "key", "value")]
    kernel, bias = (jnp.concatenate(parts, axis=-1) for parts in zip(*parameters, strict=True))
    return matmul(tokens, kernel, jnp.dtype(self.dtype)), bias

  @nn.nowrap
  def _shown(
    self, query: Array, key: Array, value: Array, mask: Array | None, causal: bool
  ) -> Float[Array, "batch q heads dim"]:
    """The same with its weights sown, as perturbations whose gradients can be had (mmjax.evaluate.attention_maps).

    Named by the number of queries: a transformer reads its last block for one token and for all.
    """
    name = f"weights_{query.shape[1]}"
    weights = self.perturb(name, attention_weights(query, key, mask=mask, causal=causal))
    self.sow("intermediates", name, weights)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
    return out.astype(value.dtype)
