"""Weights in fewer bytes: int8 with a scale per output channel, bfloat16 and float16. The program unpacks them.

int8 is symmetric: a weight w is stored as round(w / scale), where scale = max |w| / 127 over the weights of an output
channel (Jacob et al. 2018, section 2; Krishnamoorthi 2018, section 3). For a table of embeddings a channel is a row.
Vectors (biases, norms) stay float32, and so does every activation.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from mmjax.deploy.formats import DeployError

SCALE = ":scale"
"""End of the name of the scales of an int8 weight."""
_TABLES = ("embedding", "position", "token", "query", "probe")
_LARGEST = {"float16": 65504.0, "bfloat16": 3.3895e38}


def pack(params: Any, dtype: str) -> dict[str, np.ndarray]:
  """Pack the parameters of a model.

  Args:
    params: nested dictionaries of arrays.
    dtype: dtype of matrices: float32, bfloat16, float16 or int8.
  Returns: arrays by name, such as "image/transformer/block_0/mlp/up/kernel". The scales of an int8 array have its name
    and ":scale".
  Raises: DeployError: a weight is not finite, or too large for the dtype.
  """
  packed: dict[str, np.ndarray] = {}
  for name, value in flatten_dict(params, sep="/").items():
    array = np.asarray(value)
    if array.dtype == np.float32 and not np.isfinite(array).all():
      raise DeployError(f"the weight {name} has values that are not finite: export another checkpoint of the run")
    packed |= _packed(name, array, dtype)
  return packed


def unpack(packed: Mapping[str, Array | np.ndarray]) -> Any:
  """Make the parameters of a model of what `pack` returned, in float32. Runs inside the exported program.

  Args:
    packed: arrays by name. Names may be missing.
  Returns: nested dictionaries of arrays.
  """
  params: dict[str, Array] = {}
  for name, given in packed.items():
    if name.endswith(SCALE):
      continue
    array, scale = jnp.asarray(given), packed.get(name + SCALE)  # numpy would unpack them before the program runs
    if scale is not None:
      params[name] = array.astype(jnp.float32) * jnp.asarray(scale)
    else:
      low = array.dtype in (jnp.bfloat16, jnp.float16)
      params[name] = array.astype(jnp.float32) if low else array
  return unflatten_dict(params, sep="/")


def _packed(name: str, array: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
  if dtype == "float32" or array.dtype != np.float32 or array.ndim < 2:
    return {name: array}
  if dtype == "int8":
    return _int8(name, array)
  if np.abs(array).max(initial=0.0) > _LARGEST[dtype]:
    raise DeployError(
      f"the weight {name} is larger than {_LARGEST[dtype]:g}, the largest {dtype}: use --dtype bfloat16"
    )
  return {name: array.astype(jnp.bfloat16 if dtype == "bfloat16" else np.float16)}


def _int8(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
  scale = np.abs(array).max(axis=_shared_axes(name, array), keepdims=True).astype(np.float32) / np.float32(127)
  scale = np.where(scale > 0, scale, np.float32(1))  # a channel of zeros
  if array.size + scale.nbytes > array.nbytes // 2:  # too few weights share a scale
    return {name: array}
  return {name: np.rint(array / scale).astype(np.int8), name + SCALE: scale}


def _shared_axes(name: str, array: np.ndarray) -> tuple[int, ...]:
  """Axes over which weights share a scale: the inputs of a kernel, the features of an embedding.

  A stack of layers (TransformerConfig.scan) has one axis more, and each layer its own scales.
  """
  last = name.rpartition("/")[2]
  if any(word in last for word in _TABLES):
    return (-1,)
  stacked = "/blocks/" in f"/{name}/"
  return tuple(range(int(stacked), array.ndim - 1))
