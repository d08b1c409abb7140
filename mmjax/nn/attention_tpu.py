"""Attention as a TPU likes it: tokens along the 128 lanes, a head's dimensions above them, and few bytes per logit.

The TPU compiler writes one kernel per matrix product, with what is elementwise before and after it, so every array
of the logits' size is written by one kernel and read by the next. Three things make that cheap:

* heads first and tokens last ([b, h, d, l]): a head of 64 fills whole tiles, where in [b, l, h, d] it fills half of
  the 128 lanes, and the softmax runs over sublanes, which needs no shuffling between lanes;
* as many examples at a time as keep their logits in on-chip memory (`ON_CHIP`);
* what one kernel leaves for the next is float32, converted where it is read: as a product's result the compiler
  estimates bfloat16 at five times the time of float32 (350,000 against 74,000 cycles for 512 heads of 256 x 256).

By the compiler's estimate, attention with its projections takes 1.95M cycles at 64 examples of 196 tokens and 8 heads
of 64 (forward and backward, one chip) where heads side by side in their 128 lanes took 2.54M, and half the time to
compile.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Bool, Float

# Bytes of two float32 arrays of logits that lie in on-chip memory at a time; a v5e has 128 MiB, and other uses for it.
ON_CHIP = 2**26
_dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
Residuals = tuple[Array, Array, Array, Array, Array | None]


def is_local() -> bool:
  """Whether arrays are one device's own (inside shard_map): the partitioner could not split what follows by itself."""
  return bool(jax.sharding.get_abstract_mesh().manual_axes)


def rows_major(x: Float[Array, "batch length width"]) -> Float[Array, "batch length width"]:
  """Asks for one matrix [length, width] per example in memory, as attention reads it."""
  return with_layout_constraint(x, Layout(major_to_minor=(0, 1, 2)))


def attention_in_lanes(
  query: Float[Array, "batch q heads dim"],
  key: Float[Array, "batch k heads dim"],
  value: Float[Array, "batch k heads dim"],
  allowed: Bool[Array, "#batch 1 #q k"] | None,
) -> Float[Array, "batch q heads dim"]:
  """Softmax attention, the softmax in float32; zeros for a query that may read nothing."""
  tokens_last = [rearrange(x, "b l h d -> b h d l") for x in (query, key, value)]
  out = _attend(*tokens_last, None if allowed is None else allowed.swapaxes(2, 3))
  return rearrange(out, "b h d l -> b l h d")


@jax.custom_vjp
def _attend(query: Array, key: Array, value: Array, allowed: Array | None) -> Array:
  return _forward(query, key, value, allowed)[0]


def _forward(query: Array, key: Array, value: Array, allowed: Array | None) -> tuple[Array, Residuals]:
  out, total = _in_pieces(_forward_piece, (query, key, value), allowed)
  total = checkpoint_name(total, "attention")  # kept with the result: to have it again takes the whole forward pass
  return out, (query, key, value, total, allowed)


def _backward(residuals: Residuals, g: Array) -> tuple[Array, Array, Array, None]:
  query, key, value, total, allowed = residuals
  dquery, dkey, dvalue = _in_pieces(_backward_piece, (query, key, value, total, g), allowed)
  return dquery, dkey, dvalue, None


_attend.defvjp(_forward, _backward)


def _logits(query: Array, key: Array, allowed: Array | None) -> Array:
  """[batch, heads, k, q]: the keys along the sublanes, over which the softmax runs."""
  logits = _dot("bhdk,bhdq->bhkq", key, query)
  return logits if allowed is None else jnp.where(allowed, logits, jnp.finfo(jnp.float32).min)


def _forward_piece(query: Array, key: Array, value: Array, allowed: Array | None) -> tuple[Array, Array]:
  """The result, and log sum exp of the scaled logits (infinite where nothing may be read) [batch, heads, 1, q]."""
  scale = query.shape[2] ** -0.5
  logits = _logits(query, key, allowed)
  largest = logits.max(-2, keepdims=True)
  weights = jnp.exp((logits - largest) * scale)
  if allowed is not None:
    weights = jnp.where(allowed, weights, 0.0)
  weights = weights.astype(value.dtype)
  # Row sums from the matrix unit, in a product of their own: the other one then divides by them before it writes.
  ones = jnp.ones((*value.shape[:2], 8, value.shape[3]), value.dtype)
  sums = _dot("bhsk,bhkq->bhsq", ones, weights)[:, :, :1]
  sums = sums if allowed is None else jnp.where(sums == 0, jnp.inf, sums)  # x / inf: nothing was read
  out = _dot("bhdk,bhkq->bhdq", value, weights) / sums
  return out.astype(value.dtype), largest * scale + jnp.log(sums)


def _backward_piece(
  query: Array, key: Array, value: Array, total: Array, g: Array, allowed: Array | None
) -> tuple[Array, Array, Array]:
  """With w = exp(logits - total): dvalue = g w^T, dlogits = w (value^T g - the mean of that under w).

  The barriers make two products write w and dweights, as float32, on the chip. What the other three read is then
  computed from both as they read it; dlogits is written in two ways lest the compiler keep it once, as an array.
  """
  dtype, scale = query.dtype, query.shape[2] ** -0.5
  weights = lax.optimization_barrier(jnp.exp(_logits(query, key, allowed) * scale - total))
  dweights = _dot("bhdk,bhdq->bhkq", value, g)
  dweights, mean = lax.optimization_barrier((dweights, (weights * dweights).sum(-2, keepdims=True)))
  rounded = weights.astype(dtype)
  dvalue = _dot("bhdq,bhkq->bhdk", g, rounded)
  dquery = _dot("bhdk,bhkq->bhdq", key, (weights * (dweights - mean)).astype(dtype)) * scale
  dlogits = rounded.astype(jnp.float32) * (dweights * scale - mean * scale)
  dkey = _dot("bhdq,bhkq->bhdk", query, dlogits.astype(dtype))
  return dquery.astype(dtype), dkey.astype(dtype), dvalue.astype(dtype)


def _in_pieces(
  function: Callable[..., tuple[Array, ...]], arrays: tuple[Array, ...], allowed: Array | None
) -> tuple[Array, ...]:
  """`function(*arrays, allowed)`, so many examples at a time that their logits stay on the chip."""
  batch, size = arrays[0].shape[0], _piece_size(arrays[0].shape, arrays[1].shape[3])
  if size == batch:
    return function(*arrays, allowed)
  shared = allowed is None or allowed.shape[0] == 1
  cut = lambda x, i: lax.dynamic_slice_in_dim(x, i * size, size)

  def body(i: Array, buffers: tuple[Array, ...]) -> tuple[Array, ...]:
    new = function(*(cut(x, i) for x in arrays), allowed if shared else cut(allowed, i))
    pieces = (y.reshape(size, *buffer.shape[1:]) for y, buffer in zip(new, buffers, strict=True))
    return tuple(
      lax.dynamic_update_slice_in_dim(buffer, y, i * size, 0) for buffer, y in zip(buffers, pieces, strict=True)
    )

  results = jax.eval_shape(function, *arrays, allowed)
  buffers = tuple(_room(result, number, arrays[0]) for number, result in enumerate(results))
  filled = lax.fori_loop(0, batch // size, body, buffers)
  return tuple(buffer.reshape(result.shape) for buffer, result in zip(filled, results, strict=True))


def _room(result: jax.ShapeDtypeStruct, number: int, like: Array) -> Array:
  """An array to be written. Each has an axis of 1 elsewhere: equal ones the compiler takes for one, and copies it."""
  shape = list(result.shape)
  if number:
    shape.insert(number, 1)
  axes = tuple(jax.typeof(like).manual_axis_type.varying)
  room = lax.empty(tuple(shape), result.dtype)
  return lax.pcast(room, axes, to="varying") if axes else room


def _piece_size(query: tuple[int, ...], keys: int) -> int:
  """The most examples, a divisor of the batch, of which two arrays of logits fit in `ON_CHIP`."""
  batch, heads, _, queries = query
  example = 8 * heads * -(-keys // 8) * 8 * -(-queries // 128) * 128
  return max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * example <= ON_CHIP))
