"""Linear layer, with a matrix product that is fast on each platform."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from mmjax.nn.forms import by_platform

Initializer = nn.initializers.Initializer
Residuals = tuple[Array, Array, Array]


def _contract(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
  """Two-dimensional product with float32 accumulation and a float32 result.

  XLA's CPU backend runs two-dimensional operands up to three times faster than the three-dimensional operands of a
  plain einsum, above all in the weight gradient. It runs bfloat16 operands fast only if the result is float32.
  """
  return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())), preferred_element_type=jnp.float32)


def _forward_cpu(x: Array, kernel: Array) -> Array:
  y = _contract(x.reshape(-1, x.shape[-1]), kernel, 1, 0)
  return y.reshape(*x.shape[:-1], kernel.shape[1]).astype(x.dtype)


def _forward(x: Array, kernel: Array) -> Array:
  return jnp.matmul(x, kernel)  # of which ONNX makes a MatMul, and of an einsum its own, slower Einsum


def _backward_cpu(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
  x2, g2 = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
  return _contract(g2, kernel, 1, 1).reshape(x.shape).astype(x.dtype), _contract(x2, g2, 0, 0)


def _backward(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
  dk = jnp.einsum("...i,...o->io", x, g, preferred_element_type=jnp.float32)
  return jnp.einsum("...o,io->...i", g, kernel), dk


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def matmul(x: Float[Array, "*batch i"], kernel: Float[Array, "i o"], dtype: jnp.dtype) -> Float[Array, "*batch o"]:
  """`x @ kernel` computed in `dtype` with float32 accumulation. The kernel's gradient has the kernel's dtype.

  The form is chosen for the platform that the program is lowered for. A program that is compiled on a CPU for an
  accelerator gets the accelerator's form, a plain einsum.
  """
  return _matmul_forward(x, kernel, dtype)[0]


def _matmul_forward(x: Array, kernel: Array, dtype: jnp.dtype) -> tuple[Array, Residuals]:
  low = x.astype(dtype)
  y = by_platform(low, kernel.astype(dtype), cpu=_forward_cpu, default=_forward)
  return y, (low, kernel, jnp.zeros((), x.dtype))


def _matmul_backward(dtype: jnp.dtype, residuals: tuple[Array, Array, Array], g: Array) -> tuple[Array, Array]:
  low, kernel, like = residuals
  args = (low, kernel.astype(dtype), g.astype(dtype))
  dx, dk = by_platform(*args, cpu=_backward_cpu, default=_backward)
  return dx.astype(like.dtype), dk.astype(kernel.dtype)


matmul.defvjp(_matmul_forward, _matmul_backward)


@jax.custom_vjp
def add_bias(y: Float[Array, "*batch o"], bias: Float[Array, "o"]) -> Float[Array, "*batch o"]:
  """`y + bias` in the dtype of `y`. The bias gradient is summed in float32, on a TPU by the matrix unit."""
  return y + jnp.expand_dims(bias.astype(y.dtype), range(y.ndim - 1))


def _add_bias_forward(y: Array, bias: Array) -> tuple[Array, Array]:
  return add_bias(y, bias), bias


def _add_bias_backward(bias: Array, g: Array) -> tuple[Array, Array]:
  sums = by_platform(g, tpu=_column_sums_tpu, default=_column_sums)
  return g, sums.astype(bias.dtype)


def _column_sums(g: Array) -> Array:
  return g.sum(tuple(range(g.ndim - 1)), dtype=jnp.float32)


def _column_sums_tpu(g: Array) -> Array:
  """Column sums as a product with ones.

  A reduction over rows would be a separate pass, which costs 2% of a transformer block for each one.
  """
  ones = jnp.ones((*g.shape[:-1], 8), g.dtype)  # eight rows: the compiler turns a single row into a reduction
  return jnp.einsum("...r,...o->ro", ones, g, preferred_element_type=jnp.float32)[0]


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


class OtherKernel:
  """Base class of kernels that are no float32 array. A linear layer leaves its matrix product to them.

  They stand among the parameters of `apply` where the array would (see `mmjax.nn.int8`).
  """

  def product(self, x: Float[Array, "*batch i"], dtype: jnp.dtype) -> Float[Array, "*batch o"]:
    """`x @ kernel`, in `dtype`."""
    raise NotImplementedError


class DenseParameters(nn.Module):
  """Parameters of a `Dense`, for code that multiplies several kernels at once. The attributes are those of `Dense`."""

  features: int
  kernel_init: Initializer
  use_bias: bool = True

  @nn.compact
  def __call__(self, width: int) -> tuple[Float[Array, "i o"], Float[Array, "o"]]:
    kernel = self.param("kernel", self.kernel_init, (width, self.features), jnp.float32)
    if isinstance(kernel, OtherKernel):
      raise ValueError(
        f"a {type(kernel).__name__} cannot be joined with other kernels for the TPU's attention: set "
        "--model.NAME.attention xla for each tower, or quantise weights only"
      )
    if not self.use_bias:
      return kernel, jnp.zeros((self.features,), jnp.float32)
    return kernel, self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)


class Dense(nn.Module):
  """Linear layer over the last axis, with float32 parameters `kernel` [in, out] and `bias` [out].

  Attributes:
    features: width of the output.
    kernel_init: initialiser of the kernel.
    use_bias: if True, add a bias.
    dtype: dtype of the operands and of the result.
    bias_init: initialiser of the bias.
    keep_as: checkpoint name of the result, for rematerialisation policies (see `TransformerConfig.remat`).
  """

  features: int
  kernel_init: Initializer
  use_bias: bool = True
  dtype: str = "float32"
  keep_as: str = "dense"
  bias_init: Initializer = nn.initializers.zeros

  @nn.compact
  def __call__(self, x: Float[Array, "*batch i"]) -> Float[Array, "*batch o"]:
    kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
    dtype = jnp.dtype(self.dtype)
    y = kernel.product(x, dtype) if isinstance(kernel, OtherKernel) else matmul(x, kernel, dtype)
    if self.use_bias:
      bias = self.param("bias", self.bias_init, (self.features,), jnp.float32)
      y = add_bias(y, bias)
    return checkpoint_name(y, self.keep_as)
