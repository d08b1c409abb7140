"""Weights in fewer bytes: int8 with a scale per output channel, bfloat16 and float16. The program unpacks them.

int8 is symmetric: a weight w is stored as round(w / scale), where scale = max |w| / 127 over the weights of an output
channel (Jacob et al. 2018, section 2; Krishnamoorthi 2018, section 3). For a table of embeddings a channel is a row.
Vectors (biases, norms) stay float32, and so does every activation. With int8-dynamic, linear layers round their input
to int8, with a scale per row, and multiply integers (see `mmjax.nn.int8`).
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from mmjax.deploy.formats import DYNAMIC, DeployError
from mmjax.nn.int8 import Int8Kernel, has_scales, shared_axes

SCALE = ":scale"
"""End of the name of the scales of an int8 weight."""
LINEAR = ":linear_scale"
"""End of the name of the scales of an int8 kernel whose layer multiplies integers."""
_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895e38}


def pack(params: Any, dtype: str, linear: Collection[str] = ()) -> dict[str, np.ndarray]:
  """Pack the parameters of a model.

  Args:
    params: nested dictionaries of arrays.
    dtype: dtype of matrices: float32, bfloat16, float16, int8 or int8-dynamic.
    linear: for int8-dynamic, the kernels of linear layers (mmjax.nn.int8.linear_kernels).
  Returns: arrays by name, such as "image/transformer/block_0/mlp/up/kernel". The scales of an int8 array have its name
    and ":scale", or ":linear_scale".
  Raises: DeployError: a weight is not finite, or too large for the dtype.
  """
  packed: dict[str, np.ndarray] = {}
  for name, value in flatten_dict(params, sep="/").items():
    array = np.asarray(value)
    if array.dtype == np.float32 and not np.isfinite(array).all():
      raise DeployError(f"the weight {name} has values that are not finite: export another checkpoint of the run")
    packed |= _packed(name, array, dtype, LINEAR if dtype == DYNAMIC and name in linear else SCALE)
  return packed


def unpack(packed: Mapping[str, Array | np.ndarray]) -> Any:
  """Make the parameters of a model of what `pack` returned, in float32. Runs inside the exported program.

  Args:
    packed: arrays by name. Names may be missing.
  Returns: nested dictionaries of arrays, and of Int8Kernel for linear layers that multiply integers.
  """
  params: dict[str, Any] = {}
  for name, given in packed.items():
    if name.endswith((SCALE, LINEAR)):
      continue
    if name + LINEAR in packed:
      params[name] = Int8Kernel(jnp.asarray(given), jnp.asarray(packed[name + LINEAR]))
      continue
    array, scale = jnp.asarray(given), packed.get(name + SCALE)  # numpy would unpack them before the program runs
    if scale is not None:
      params[name] = array.astype(jnp.float32) * jnp.asarray(scale)
    else:
      low = array.dtype in (jnp.bfloat16, jnp.float16)
      params[name] = array.astype(jnp.float32) if low else array
  return unflatten_dict(params, sep="/")


def _packed(name: str, array: np.ndarray, dtype: str, end: str) -> dict[str, np.ndarray]:
  if dtype == "float32" or array.dtype != np.float32 or array.ndim < 2:
    return {name: array}
  if dtype in ("int8", DYNAMIC):
    return _int8(name, array, end)
  if np.abs(array).max(initial=0.0) > _LARGEST[dtype]:
    raise DeployError(
      f"the weight {name} is larger than {_LARGEST[dtype]:g}, the largest {dtype}: use --dtype bfloat16"
    )
  return {name: array.astype(jnp.bfloat16 if dtype == "bfloat16" else np.float16)}


def _int8(name: str, array: np.ndarray, end: str) -> dict[str, np.ndarray]:
  if not has_scales(name, array.shape):
    return {name: array}
  axes = shared_axes(name, array.ndim)
  scale = np.abs(array).max(axis=axes, keepdims=True).astype(np.float32) / np.float32(127)
  scale = np.where(scale > 0, scale, np.float32(1))  # a channel of zeros
  return {name: np.rint(array / scale).astype(np.int8), name + end: scale}
