"""Self-attention as two TPU kernels (Pallas), forward and backward, whose logits stay in on-chip memory.

* Layout. Queries, keys and values are read from the output of one matrix product, where they lie next to each other:
  [batch * length, 3 * heads * dim]. Other forms of attention need another layout, and a change of layout costs a TPU
  as much as a projection.
* Blocks. A program of the kernel processes as many examples as fill whole tiles of 8 rows, and as many heads as fill
  whole tiles of 128 lanes. The last program may reach beyond the batch; that part is not written.
* Small heads. A head that fills only part of a tile multiplies the whole tile, with the other lanes set to zero. This
  takes no more time, because the matrix unit is 128 wide.
* Backward. The backward pass recomputes the softmax.

Source: FlashAttention (Dao et al. 2022), but with whole rows of logits, which fit in on-chip memory.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Bool, Float

from mmjax.nn.tpu import LANES, ROWS, first_rows, kernel_metadata, like

MOST_TOKENS, MOST_LOGITS = 640, 2**21  # limits of a program, whose loops are unrolled: larger ones become too long
DEFAULT_MEMORY = 2**24  # bytes of on-chip memory that a kernel gets by default
_LOG2_E = math.log2(math.e)
Ref = Any  # a block of an array in on-chip memory


def chip_memory() -> int:
  """Bytes of on-chip memory (VMEM) available to kernels, on the TPU that the program is traced for."""
  return pltpu.get_tpu_info().vmem_capacity_bytes


def fits_kernel(length: int, width: int, heads: int, *, itemsize: int, memory: int) -> bool:
  """True if the kernel supports these sizes: heads fill whole tiles, and programs are not too large.

  Args:
    length: tokens per example.
    width: width of the tokens.
    heads: number of attention heads.
    itemsize: bytes per element of the tokens.
    memory: bytes of on-chip memory, as `chip_memory` returns them.
  """
  if width % heads or width % math.lcm(LANES, width // heads) or not 1 < length <= MOST_TOKENS:
    return False
  sizes = _Sizes(ROWS, length, heads, width // heads, causal=False, interpret=False)
  logits = sizes.examples * sizes.lanes // sizes.dim * length**2
  return logits <= MOST_LOGITS and sizes.memory(itemsize) <= max(DEFAULT_MEMORY, memory // 2)


def self_attention(
  projected: Float[Array, "batch*length 3*width"],
  bias: Float[Array, "3*width"],
  mask: Bool[Array, "batch length"] | None,
  *,
  batch: int,
  heads: int,
  causal: bool,
  interpret: bool = False,
) -> Float[Array, "batch*length width"]:
  """Self-attention with the TPU kernels; equals `mmjax.nn.attention.attention`.

  The bias is added here because the backward kernel already holds its gradient and sums it at no cost.

  Args:
    projected: queries, keys and values next to each other, in this order, before the bias.
    bias: bias of the three projections, in the same order.
    mask: True for each token that may be read.
    batch: number of examples.
    heads: number of attention heads.
    causal: if True, a token reads only itself and earlier tokens.
    interpret: if True, run the kernels on any platform, slowly.
  Returns: the attention output, before the output projection.
  """
  sizes = _Sizes(batch, projected.shape[0] // batch, heads, projected.shape[1] // (3 * heads), causal, interpret)
  return _attend(projected, bias, None if mask is None else mask[:, None, :].astype(jnp.float32), sizes)


@dataclasses.dataclass(frozen=True)
class _Sizes:
  """Sizes of a call, which determine the kernel's blocks and grid."""

  batch: int
  length: int
  heads: int
  dim: int
  causal: bool
  interpret: bool

  @property
  def width(self) -> int:
    return self.heads * self.dim

  @property
  def lanes(self) -> int:
    """Lanes of a program's block: the smallest number of whole tiles that holds whole heads."""
    return math.lcm(LANES, self.dim)

  @property
  def examples(self) -> int:
    """Examples in a program's block: the smallest number whose rows fill whole tiles, but at most the batch."""
    return min(self.batch, ROWS // math.gcd(ROWS, self.length))

  @property
  def rows(self) -> int:
    """Rows of a program's block."""
    return self.examples * self.length

  @property
  def grid(self) -> tuple[int, int]:
    """Grid of programs: blocks of heads, then blocks of examples. The last block may reach beyond the batch."""
    return self.width // self.lanes, pl.cdiv(self.batch, self.examples)

  def memory(self, itemsize: int) -> int:
    """Estimate of the bytes of on-chip memory.

    Five blocks have two buffers each and three blocks have one. The rest (eight blocks, 13 matrices of logits) is what
    the compiler was observed to add for the computation of single heads.
    """
    logits = 4 * _whole(self.length, ROWS) * _whole(self.length, LANES)
    return (2 * 5 + 3 + 8) * itemsize * self.rows * self.lanes + 13 * logits

  def described(self, kind: str, itemsize: int, *, masked: bool, products: int) -> dict[str, Any]:
    """Name, metadata and memory limit of a kernel. The limit is set only if the default is too small."""
    how = "_causal" * self.causal + "_masked" * masked
    flops = 2 * products * self.batch * self.heads * self.length**2 * self.dim
    name = f"{kind}_{self.batch}x{self.length}x{self.heads}x{self.dim}{how}"
    metadata = kernel_metadata(flops=flops, programs=math.prod(self.grid))
    memory = self.memory(itemsize)
    limit = pltpu.CompilerParams(vmem_limit_bytes=memory) if memory > DEFAULT_MEMORY else None
    return {"name": name, "metadata": metadata, "compiler_params": limit, "interpret": self.interpret}


def _whole(count: int, tile: int) -> int:
  return pl.cdiv(count, tile) * tile


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attend(projected: Array, bias: Array, mask: Array | None, sizes: _Sizes) -> Array:
  return _attend_forward(projected, bias, mask, sizes)[0]


def _attend_forward(
  projected: Array, bias: Array, mask: Array | None, sizes: _Sizes
) -> tuple[Array, tuple[Array, Array | None, Array]]:
  packed = checkpoint_name(projected + bias.astype(projected.dtype)[None], "dense")
  parts = [_block(sizes, part) for part in range(3)]
  out = pl.pallas_call(
    functools.partial(_forward_kernel, sizes=sizes),
    grid=sizes.grid,
    in_specs=[*parts, *_mask_block(sizes, mask)],
    out_specs=parts[0],
    out_shape=like(packed, packed.shape[0], sizes.width),
    **sizes.described("attention_forward", packed.dtype.itemsize, masked=mask is not None, products=2),
  )(packed, packed, packed, *_present(mask))
  return out, (packed, mask, bias)


def _attend_backward(
  sizes: _Sizes, residuals: tuple[Array, Array | None, Array], g: Array
) -> tuple[Array, Array, None]:
  """Gradients of `projected` and `bias`.

  The third axis of the grid writes one of the three gradients (of queries, keys, values) at a time into one array.
  """
  packed, mask, bias = residuals
  parts = [_block(sizes, part) for part in range(3)]
  written = pl.BlockSpec((sizes.rows, sizes.lanes), lambda j, i, part: (i, part * sizes.grid[0] + j))
  sums = pl.BlockSpec((1, sizes.lanes), lambda j, i, part: (0, j))
  gradient, *totals = pl.pallas_call(
    functools.partial(_backward_kernel, sizes=sizes),
    grid=(*sizes.grid, 3),
    in_specs=[*parts, parts[0], *_mask_block(sizes, mask)],
    out_specs=[written, *[sums] * 3],
    out_shape=[like(packed, *packed.shape), *[like(bias, 1, sizes.width)] * 3],
    scratch_shapes=[pltpu.VMEM((sizes.rows, sizes.lanes), packed.dtype)] * 3,
    **sizes.described("attention_backward", packed.dtype.itemsize, masked=mask is not None, products=5),
  )(packed, packed, packed, g, *_present(mask))
  return gradient, jnp.concatenate(totals, axis=1)[0], None


_attend.defvjp(_attend_forward, _attend_backward)


def _block(sizes: _Sizes, part: int) -> pl.BlockSpec:
  """Block of queries (part 0), keys (part 1) or values (part 2). Part 0 also serves arrays that have one part only."""
  return pl.BlockSpec((sizes.rows, sizes.lanes), lambda j, i, *_: (i, part * sizes.grid[0] + j))


def _mask_block(sizes: _Sizes, mask: Array | None) -> list[pl.BlockSpec]:
  return [] if mask is None else [pl.BlockSpec((sizes.examples, 1, sizes.length), lambda j, i, *_: (i, 0, 0))]


def _present(mask: Array | None) -> list[Array]:
  return [] if mask is None else [mask]


def _forward_kernel(query: Ref, key: Ref, value: Ref, *others: Ref, sizes: _Sizes) -> None:
  mask, out = others if len(others) == 2 else (None, *others)
  begun: dict[int, Array] = {}
  for head in _heads(sizes):
    v = value[head.at]
    weights, scale = _weights(query[head.at], head.own(key[head.at]), _allowed(sizes, mask, head), sizes.dim)
    head.write(out, _product(weights.astype(v.dtype), v, 1, 0) * scale, begun)


def _backward_kernel(query: Ref, key: Ref, value: Ref, g: Ref, *others: Ref, sizes: _Sizes) -> None:
  """Computes the three gradients of a block of heads and examples.

  With w = softmax: dvalue = w^T g, dlogits = w (g value^T - its mean under w), dquery = dlogits key / sqrt(dim).
  """
  mask, out, *results = others if len(others) == 8 else (None, *others)
  sums, gradients = results[:3], results[3:]
  block, part = pl.program_id(1), pl.program_id(2)

  @pl.when((block == 0) & (part == 0))
  def _() -> None:
    for total in sums:
      total[...] = jnp.zeros_like(total)

  @pl.when(part == 0)
  def _() -> None:
    begun: tuple[dict[int, Array], ...] = ({}, {}, {})
    for head in _heads(sizes):
      q, k, v, dout = (ref[head.at] for ref in (query, key, value, g))
      weights, scale = _weights(q, head.own(k), _allowed(sizes, mask, head), sizes.dim)
      dweights = _product(dout, head.own(v), 1, 1)
      mean = (weights * dweights).sum(-1, keepdims=True) * scale
      dlogits = (weights * ((dweights - mean) * (scale * sizes.dim**-0.5))).astype(q.dtype)
      head.write(gradients[0], _product(dlogits, k, 1, 0), begun[0])
      head.write(gradients[1], _product(dlogits, q, 0, 0), begun[1])
      head.write(gradients[2], _product((weights * scale).astype(q.dtype), dout, 0, 0), begun[2])
    rows = sizes.batch * sizes.length - block * sizes.rows
    for total, gradient in zip(sums, gradients, strict=True):
      total[...] += first_rows(gradient[...].astype(jnp.float32), rows).sum(0, keepdims=True)

  for number, gradient in enumerate(gradients):

    @pl.when(part == number)
    def _(gradient: Ref = gradient) -> None:
      out[...] = gradient[...]


@dataclasses.dataclass(frozen=True)
class _Head:
  """One head of one example in a program's block.

  Attributes:
    example: number of the example in the block.
    rows: rows of the example in the block.
    tiles: lanes of the tiles that contain the head.
    first, end: lanes of the head itself; `end` is exclusive.
  """

  example: int
  rows: slice
  tiles: slice
  first: int
  end: int

  @property
  def at(self) -> tuple[slice, slice]:
    """Index of the head's tiles in the block."""
    return self.rows, self.tiles

  def own(self, x: Array) -> Array:
    """The head's tiles of an array, with zeros in the lanes of other heads."""
    if (self.first, self.end) == (self.tiles.start, self.tiles.stop):
      return x
    lane = _lane(x, self.tiles.start)
    return jnp.where((lane >= self.first) & (lane < self.end), x, jnp.zeros((), x.dtype))

  def write(self, ref: Ref, x: Array, pending: dict[int, Array]) -> None:
    """Writes the head's lanes of `x`, tile by tile. `pending` holds tiles that earlier heads have filled in part."""
    for tile in range(self.tiles.start, self.tiles.stop, LANES):
      mine = x[:, tile - self.tiles.start :][:, :LANES]
      if tile in pending:
        mine = jnp.where(_lane(mine, tile) >= self.first, mine, pending.pop(tile))
      if self.end >= tile + LANES:
        ref[self.rows, tile : tile + LANES] = mine.astype(ref.dtype)
      else:
        pending[tile] = mine


def _lane(x: Array, start: int) -> Array:
  return lax.broadcasted_iota(jnp.int32, x.shape, 1) + start


def _heads(sizes: _Sizes) -> Iterator[_Head]:
  for example in range(sizes.examples):
    rows = slice(example * sizes.length, (example + 1) * sizes.length)
    for first in range(0, sizes.lanes, sizes.dim):
      end = first + sizes.dim
      yield _Head(example, rows, slice(first // LANES * LANES, -(-end // LANES) * LANES), first, end)


def _allowed(sizes: _Sizes, mask: Ref | None, head: _Head) -> Array | None:
  """Mask of the keys that each query may read, [q or 1, k]; None if each query reads every key."""
  keys = None if mask is None else mask[head.example] > 0
  if not sizes.causal:
    return keys
  place = lambda axis: lax.broadcasted_iota(jnp.int32, (sizes.length, sizes.length), axis)
  before = place(0) >= place(1)
  return before if keys is None else before & keys


def _weights(query: Array, key: Array, allowed: Array | None, dim: int) -> tuple[Array, Array]:
  """exp(logits - max) [q, k], and the factor that makes each row sum to 1. Zeros for a query that may read no key."""
  logits = _product(query, key, 1, 1)
  if allowed is not None:
    logits = jnp.where(allowed, logits, jnp.finfo(jnp.float32).min)
  weights = jnp.exp2((logits - logits.max(-1, keepdims=True)) * (dim**-0.5 * _LOG2_E))
  if allowed is not None:
    weights = jnp.where(allowed, weights, 0.0)
  return weights, 1.0 / jnp.maximum(weights.sum(-1, keepdims=True), 1.0)  # the largest weight is 1


def _product(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
  """Product of `a` and `b`, summed over one axis of each, in float32."""
  return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)
