"""Compression while a run trains: weights that become zero step by step, and weights that are rounded to int8."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.errors import ConfigError
from mmjax.nn.int8 import linear_kernels
from mmjax.parallel.rules import match_rules, parameter_path
from mmjax.settings import CompressionConfig
from mmjax.train.state import Params


def sparsity_at(config: CompressionConfig, step: Int[Array, ""], steps: int) -> Float[Array, ""]:
  """Share of zero weights after a step: sparsity (1 - (1 - t)^3), where t goes from 0 to 1 (Zhu and Gupta 2017, eq. 1).

  Args:
    config: the settings.
    step: number of the step, from 0.
    steps: number of steps of the run.
  """
  first, last = config.sparse_from, _last(config, steps)
  time = jnp.clip((step - first).astype(jnp.float32) / max(1, last - first), 0.0, 1.0)
  return config.sparsity * (1.0 - (1.0 - time) ** 3)


def pruned(config: CompressionConfig, params: Params, before: Params, step: Int[Array, ""], steps: int) -> Params:
  """Set the weights with the least magnitude to zero, each kernel for itself.

  Every `sparse_every` steps the share of zeros rises to `sparsity_at`. At other steps, weights that were zero before
  the update are zero again. So the zeros of the parameters are the mask, and a resumed run has it.

  Args:
    config: the settings.
    params: parameters after the update.
    before: parameters before it.
    step: number of the step, from 0.
    steps: number of steps of the run.
  Raises: ConfigError: no kernel matches an expression of `sparse_kernels`.
  """
  if not config.sparsity:
    return params
  share, last = sparsity_at(config, step, steps), _last(config, steps)
  past = step - config.sparse_from
  due = (past >= 0) & (((past % config.sparse_every == 0) & (step <= last)) | (step == last))

  def one(path: Any, new: Array, old: Array, chosen: bool) -> Array:
    if not chosen:
      return new
    held = jnp.where((old == 0) & (old != 0).any(), jnp.zeros_like(new), new)  # a kernel of zeros is not yet trained
    layers = held if "/blocks/" in f"/{parameter_path(path)}/" else held[None]  # a stack (scan): each for itself
    cut = lambda layers: jax.vmap(_without_smallest, (0, None))(layers, share).reshape(held.shape)
    return jax.lax.cond(due, cut, lambda layers: layers.reshape(held.shape), layers)

  return jax.tree_util.tree_map_with_path(one, params, before, _chosen(config, params))


def zero_where(config: CompressionConfig, average: Params, params: Params) -> Params:
  """Set a moving average to zero where a pruned weight is zero."""
  if not config.sparsity:
    return average
  zeroed = lambda mean, weight, chosen: jnp.where(weight == 0, jnp.zeros_like(mean), mean) if chosen else mean
  return jax.tree.map(zeroed, average, params, _chosen(config, params))


def rounded_inputs(config: CompressionConfig, model: nn.Module) -> frozenset[str]:
  """Paths of the kernels whose layers round their input: all linear layers, or none."""
  settings: Any = model
  return linear_kernels(model, settings.config.example(1)) if config.quantize == "all" else frozenset()


def _without_smallest(kernel: Float[Array, "*shape"], share: Float[Array, ""]) -> Float[Array, "*shape"]:
  """Set a share of the weights, those with the least magnitude, to zero. Equal magnitudes stay together."""
  sizes = jnp.sort(jnp.abs(kernel).ravel())
  place = jnp.floor(share * sizes.size).astype(jnp.int32)
  return jnp.where(jnp.abs(kernel) < sizes[place], jnp.zeros_like(kernel), kernel)


def _last(config: CompressionConfig, steps: int) -> int:
  """Step of the last pruning."""
  until = config.sparse_until
  return max(config.sparse_from + 1, 2 * steps // 3) if until is None else until


def _chosen(config: CompressionConfig, params: Params) -> Any:
  """Mask of the parameters that are pruned: matrices whose path matches an expression. Raises ConfigError if none."""
  rules = [(expression, True) for expression in config.sparse_kernels] + [(".*", False)]
  mask = match_rules(rules, params, purpose="pruning")
  matrix = lambda leaf, path: bool(path) and leaf.ndim >= 2
  mask = jax.tree.map(matrix, params, mask)
  if not any(jax.tree.leaves(mask)):
    raise ConfigError(f"compression.sparse_kernels {config.sparse_kernels} matches no kernel of the model")
  return mask
