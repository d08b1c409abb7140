"""Low-rank adapters: small trained matrices that are added to frozen kernels before the model is applied.

The model knows nothing of adapters. Its kernels W become W + scale * down @ up, a function of the parameters, where a
step calls the model and where a run is loaded. W itself is never changed.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jaxtyping import Float

from mmjax.errors import ConfigError
from mmjax.settings import AdapterConfig

ADAPTERS = "adapters"
"""Entry of the parameters for the adapters, by the paths of their kernels."""


def initial_adapters(config: AdapterConfig, params: Any, key: Array) -> dict[str, Any]:
  """Make the adapters before the first step: `up` is zero, so that the adapted kernels are the kernels.

  Args:
    config: the settings.
    params: parameters of the model, or their shapes.
    key: random key.
  Returns: {"down": [..., inputs, rank], "up": [..., rank, outputs]}, and for DoRA "magnitude" [..., outputs], the
    difference from the norm of the kernel's columns, under the path of each kernel.
  Raises: ConfigError: no linear layer matches the expressions of `kernels`.
  """
  found = {}
  for place, (path, leaf) in enumerate(sorted(_adapted(config, params).items())):
    *leading, inputs, outputs = leaf.shape
    # PEFT's initialisation (He et al. 2015 with a = sqrt(5)): uniform within 1 / sqrt(inputs).
    uniform = jax.random.uniform(jax.random.fold_in(key, place), (*leading, inputs, config.rank), minval=-1.0)
    made = {"down": uniform * inputs**-0.5, "up": jnp.zeros((*leading, config.rank, outputs))}
    found[path] = made | ({"magnitude": jnp.zeros((*leading, outputs))} if config.dora else {})
  return unflatten_dict(found, sep="/")


def merged(config: AdapterConfig, params: Mapping[str, Any]) -> dict[str, Any]:
  """Add the adapters to their kernels (Hu et al. 2022, section 4.1). The result has no entry for adapters.

  With DoRA, the columns of the sum are scaled to their magnitude, and no gradient goes through their norm (Liu et al.
  2024, equations 5 and 11).

  Args:
    config: the settings.
    params: parameters of the model, with or without adapters.
  """
  rest = {name: part for name, part in params.items() if name != ADAPTERS}
  if ADAPTERS not in params:
    return rest
  flat = flatten_dict(rest, sep="/")
  for path, adapter in by_kernel(params[ADAPTERS]).items():
    flat[path] = _adapted_kernel(config, flat[path], adapter)
  return unflatten_dict(flat, sep="/")


def by_kernel(adapters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Parts of the adapters (down, up, magnitude), by the path of their kernel."""
  found: dict[str, dict[str, Any]] = {}
  for path, leaf in flatten_dict(adapters, sep="/").items():
    kernel, _, part = path.rpartition("/")
    found.setdefault(kernel, {})[part] = leaf
  return found


def kernel_norms(kernel: Float[Array, "*layers i o"]) -> Float[Array, "*layers o"]:
  """Norms of the columns of a kernel, which are the weights of one output each."""
  return jnp.sqrt(jnp.square(kernel).sum(-2))


def _adapted_kernel(config: AdapterConfig, kernel: Array, adapter: Mapping[str, Array]) -> Array:
  change = jnp.matmul(adapter["down"], adapter["up"], precision=jax.lax.Precision.HIGHEST)
  moved = kernel + (config.alpha / config.rank) * change
  if "magnitude" not in adapter:
    return moved
  # A column that has not changed keeps its norm to the bit: two sums of the same squares may be rounded differently.
  norms = kernel_norms(kernel)
  now = jnp.where((change == 0).all(-2), norms, kernel_norms(moved))
  scale = (norms + adapter["magnitude"]) / jax.lax.stop_gradient(now)
  return moved * jnp.expand_dims(scale, -2)


def _adapted(config: AdapterConfig, params: Any) -> dict[str, Any]:
  """Kernels that match an expression of `kernels`, by path."""
  linear = {path: leaf for path, leaf in flatten_dict(params, sep="/").items() if _is_linear(path, leaf.shape)}
  try:
    found = {path: leaf for path, leaf in linear.items() if any(re.search(e, path) for e in config.kernels)}
  except re.error as error:
    raise ConfigError(f"adapter.kernels {config.kernels} has what is not a regular expression: {error}") from error
  if not found:
    some = ", ".join(list(linear)[:3]) or "none"
    raise ConfigError(f"adapter.kernels {config.kernels} matches no linear layer of the model; it has {some}, ...")
  return found


def _is_linear(path: str, shape: tuple[int, ...]) -> bool:
  """True for the kernel of a linear layer, of a stack of them (scan), and of a convolution with one pixel."""
  if not path.endswith("/kernel"):
    return False
  stacked = re.search(r"(^|/)blocks/", path) is not None
  return len(shape) == 2 + stacked or (len(shape) == 4 and shape[:2] == (1, 1) and shape[2] > 1)
