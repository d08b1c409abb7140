"""Weights and activations in int8: a linear layer computed with them, and its straight-through form for training.

Both are symmetric. A weight has the scale of its output channel, and an activation that of its row (one token), which
is computed when the layer runs: max |x| / 127 (Jacob et al. 2018, section 2; Krishnamoorthi 2018, section 3).
"""

from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array, lax
from jaxtyping import Float, Int8

from mmjax.nn.dense import Dense, OtherKernel, matmul

_TABLES = ("embedding", "position", "token", "query", "probe")


class Int8Kernel(OtherKernel, flax.struct.PyTreeNode):
  """Kernel of a linear layer in int8. It stands in the place of the float32 kernel among the parameters.

  Attributes:
    values: the weights, divided by their scale and rounded.
    scale: scale of each output.
  """

  values: Int8[Array, "*layers i o"]
  scale: Float[Array, "*layers 1 o"]

  def product(self, x: Float[Array, "*batch i"], dtype: jnp.dtype) -> Float[Array, "*batch o"]:
    """`x @ kernel` with integer arithmetic: rows of x are rounded to int8, and products are summed in int32."""
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    scale = scales(rows, -1)
    low = jnp.round(rows / scale).astype(jnp.int8)
    sums = lax.dot_general(low, self.values, (((1,), (0,)), ((), ())), preferred_element_type=jnp.int32)
    return (sums.astype(jnp.float32) * scale * self.scale).reshape(*x.shape[:-1], -1).astype(dtype)


class RoundedKernel(OtherKernel, flax.struct.PyTreeNode):
  """Kernel of a linear layer that is trained for int8.

  Its `product` is that of Int8Kernel. The gradients pass through the rounding (straight-through).

  Attributes:
    kernel: the float32 weights.
  """

  kernel: Float[Array, "*layers i o"]

  def product(self, x: Float[Array, "*batch i"], dtype: jnp.dtype) -> Float[Array, "*batch o"]:
    """`x @ kernel` with rounded rows and weights. The gradients are those without rounding."""
    return matmul(rounded(x.astype(jnp.float32), -1), rounded(self.kernel, -2), dtype)


def scales(array: Float[Array, "*shape"], axis: int | tuple[int, ...]) -> Float[Array, "*scales"]:
  """Scale of the values along `axis`, of length 1 there: max / 127. 1 where all values are 0."""
  scale = jnp.abs(array).max(axis=axis, keepdims=True) / jnp.asarray(127, array.dtype)
  return jnp.where(scale > 0, scale, jnp.ones_like(scale))


def rounded(array: Float[Array, "*shape"], axis: int | tuple[int, ...]) -> Float[Array, "*shape"]:
  """Round values to the 255 of int8 with one scale along `axis`. The gradient is that of the identity.

  Args:
    array: the values.
    axis: values along these axes share a scale.

  Example:
    >>> import jax.numpy as jnp
    >>> from mmjax.nn.int8 import rounded
    >>> [round(float(x), 3) for x in rounded(jnp.asarray([1.27, 0.504, -0.006]), -1)]
    [1.27, 0.5, -0.01]
  """
  scale = scales(array, axis)
  return array + lax.stop_gradient(jnp.round(array / scale) * scale - array)


def shared_axes(path: str, ndim: int) -> tuple[int, ...]:
  """Axes over which weights share a scale: the inputs of a kernel, the features of an embedding.

  A stack of layers (TransformerConfig.scan) has one axis more, and each layer its own scales.

  Args:
    path: path of the parameter.
    ndim: number of its dimensions.
  """
  if any(word in path.rpartition("/")[2] for word in _TABLES):
    return (ndim - 1,)
  return tuple(range(int("/blocks/" in f"/{path}/"), ndim - 1))


def has_scales(path: str, shape: tuple[int, ...]) -> bool:
  """True if a parameter is stored in int8: a matrix or table of which enough weights share a scale."""
  size, number = 1, 1
  for axis, side in enumerate(shape):
    size *= side
    number *= 1 if axis in shared_axes(path, len(shape)) else side
  return len(shape) >= 2 and size + 4 * number <= 4 * size // 2


def trained_for_int8(params: Any, linear: Collection[str]) -> dict[str, Any]:
  """Round weights as an export in int8 does, with straight-through gradients.

  Args:
    params: parameters of a model, float32.
    linear: paths of kernels whose layers also round their input (see `linear_kernels`).
  Returns: parameters for the model's `apply`.
  """
  found: dict[str, Any] = {}
  for path, leaf in flatten_dict(params, sep="/").items():
    if not has_scales(path, leaf.shape):
      found[path] = leaf
    elif path in linear:
      found[path] = RoundedKernel(leaf)
    else:
      found[path] = rounded(leaf, shared_axes(path, leaf.ndim))
  return unflatten_dict(found, sep="/")


def linear_kernels(model: nn.Module, example: Mapping[str, Any]) -> frozenset[str]:
  """Paths of the kernels that a model multiplies with in linear layers (Dense). Nothing is computed.

  Args:
    model: the linen module.
    example: arrays of a batch, as its ModelConfig's `example` makes them.
  """
  found: set[str] = set()

  def see(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    if isinstance(context.module, Dense) and context.method_name == "__call__":
      found.add("/".join((*context.module.path, "kernel")))
    return call(*args, **kwargs)

  with nn.intercept_methods(see):
    jax.eval_shape(model.init, jax.random.key(0), example)
  return frozenset(found)
