"""Layer normalisation as two TPU kernels, forward and backward, for a network that also uses the norm's input.

Without the kernels, the compiler runs a separate pass over the tokens for the statistics, and normalises again in each
product that reads the result. Its backward pass takes two passes and a sum with the gradient of the other use of the
input. Each kernel reads every array once.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jaxtyping import Float

from mmjax.nn.tpu import LANES, ROWS, first_rows, kernel_metadata, like

_BLOCK = 2**18  # elements of an array that a program reads at most
Ref = Any  # a block of an array in on-chip memory


def fits_kernel(width: int) -> bool:
  """True if rows of this width fill whole tiles, and at least one row of tiles fits in a program's block."""
  return width % LANES == 0 and ROWS * width <= _BLOCK


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def norm_beside(
  x: Float[Array, "rows width"],
  scale: Float[Array, "width"],
  bias: Float[Array, "width"],
  epsilon: float,
  interpret: bool = False,
) -> tuple[Float[Array, "rows width"], Float[Array, "rows width"]]:
  """Returns x and `mmjax.nn.norm.layer_norm` of x.

  Args:
    x: input.
    scale: scale of each feature.
    bias: bias of each feature.
    epsilon: added to the variance.
    interpret: if True, run the kernels on any platform, slowly.
  """
  return _forward(x, scale, bias, epsilon, interpret)[0]


def _forward(
  x: Array, scale: Array, bias: Array, epsilon: float, interpret: bool
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
  rows, vector, programs = _blocks(x)
  y = pl.pallas_call(
    functools.partial(_forward_kernel, epsilon=epsilon),
    grid=(programs,),
    in_specs=[rows, vector, vector],
    out_specs=rows,
    out_shape=like(x, *x.shape),
    interpret=interpret,
    name=f"norm_forward_{x.shape[0]}x{x.shape[1]}",
    metadata=kernel_metadata(flops=0, programs=programs),
  )(x, scale[None], bias[None])
  return (x, y), (x, scale)


def _backward(
  epsilon: float, interpret: bool, residuals: tuple[Array, Array], g: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
  x, scale = residuals
  rows, vector, programs = _blocks(x)
  sums = like(scale, 1, x.shape[1])
  dx, dscale, dbias = pl.pallas_call(
    functools.partial(_backward_kernel, count=x.shape[0], epsilon=epsilon),
    grid=(programs,),
    in_specs=[rows, vector, rows, rows],
    out_specs=[rows, vector, vector],
    out_shape=[like(x, *x.shape), sums, sums],
    interpret=interpret,
    name=f"norm_backward_{x.shape[0]}x{x.shape[1]}",
    metadata=kernel_metadata(flops=0, programs=programs),
  )(x, scale[None], *g)
  return dx, dscale[0], dbias[0]


norm_beside.defvjp(_forward, _backward)


def _blocks(x: Array) -> tuple[pl.BlockSpec, pl.BlockSpec, int]:
  """The block of rows that a program reads, the block of a vector, and the number of programs.

  Blocks divide the rows evenly if possible. Otherwise the last block reaches beyond x.
  """
  rows, width = x.shape
  most = min(rows, _BLOCK // width // ROWS * ROWS)
  block = max((n for n in range(ROWS, most + 1, ROWS) if rows % n == 0), default=most)
  vector = pl.BlockSpec((1, width), lambda i: (0, 0))
  return pl.BlockSpec((block, width), lambda i: (i, 0)), vector, pl.cdiv(rows, block)


def _normal(x: Ref, epsilon: float) -> tuple[Array, Array]:
  """(x - mean) / deviation and 1 / deviation of every row."""
  x32 = x[...].astype(jnp.float32)
  centred = x32 - x32.mean(-1, keepdims=True)
  inverse = lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)
  return centred * inverse, inverse


def _forward_kernel(x: Ref, scale: Ref, bias: Ref, y: Ref, *, epsilon: float) -> None:
  y[...] = (_normal(x, epsilon)[0] * scale[...] + bias[...]).astype(y.dtype)


def _backward_kernel(
  x: Ref, scale: Ref, beside: Ref, g: Ref, dx: Ref, dscale: Ref, dbias: Ref, *, count: int, epsilon: float
) -> None:
  normal, inverse = _normal(x, epsilon)
  g32 = g[...].astype(jnp.float32)
  scaled = g32 * scale[...]
  projected = normal * (scaled * normal).mean(-1, keepdims=True)
  through = inverse * (scaled - scaled.mean(-1, keepdims=True) - projected)
  dx[...] = (beside[...].astype(jnp.float32) + through).astype(dx.dtype)

  program = pl.program_id(0)

  @pl.when(program == 0)
  def _() -> None:
    dscale[...] = jnp.zeros_like(dscale)
    dbias[...] = jnp.zeros_like(dbias)

  rows = count - program * x.shape[0]
  dscale[...] += first_rows(g32 * normal, rows).sum(0, keepdims=True)
  dbias[...] += first_rows(g32, rows).sum(0, keepdims=True)
