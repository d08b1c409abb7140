"""Normalisation of feature maps, channel by channel: batch norm, frozen batch norm and group norm."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax
from jaxtyping import Float

from mmjax.nn.dense import Initializer

ChannelNormKind = Literal["group", "batch", "frozen"]

STATISTICS = "statistics"
"""Collection in which batch norm leaves the mean and variance of a training batch, under its parameters' names."""
AVERAGES = "(^|/)(mean|var)$"
"""Expression of the paths of the running averages, which are parameters without a gradient."""

_GROUP = 16  # channels of a group (Wu and He 2018, table 3). With groups of one, colours would be lost in the stem
_KEPT = 0.9  # share of the old running average that a step keeps (PyTorch: momentum 0.1)


class ChannelNorm(nn.Module):
  """(x - mean) / sqrt(var + epsilon) * scale + bias, in float32. The result has the dtype of the input.

  Parameters: scale, bias; for "batch" and "frozen" also mean and var, which get no gradient.

  Attributes:
    kind: statistics. "group": mean and variance of each example over groups of about 16 channels. "batch": of the whole
      batch in training, and their running averages, the parameters mean and var, in evaluation. "frozen": always the
      parameters mean and var.
    scale_init: initialiser of the scale.
    epsilon: added to the variance.
  """

  kind: ChannelNormKind
  scale_init: Initializer = nn.initializers.ones
  epsilon: float = 1e-5

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch height width channels"], *, training: bool
  ) -> Float[Array, "batch height width channels"]:
    channels = (x.shape[-1],)
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    scale, bias = self.param("scale", self.scale_init, channels), self.param("bias", zeros, channels)
    x32 = x.astype(jnp.float32)
    if self.kind == "group":
      normal = _by_group(x32, self.epsilon)
    else:
      mean, var = (lax.stop_gradient(self.param(*p, channels)) for p in (("mean", zeros), ("var", ones)))
      if self.kind == "batch" and training:
        mean, var = _over_batch(x32)
        if self.is_mutable_collection(STATISTICS):
          # One row per device, because the results of a mapped forward pass are rows.
          self.put_variable(STATISTICS, "mean", lax.stop_gradient(mean)[None])
          self.put_variable(STATISTICS, "var", lax.stop_gradient(var)[None])
      normal = (x32 - _last(mean)) * _last(lax.rsqrt(var + self.epsilon))
    return (normal * _last(scale) + _last(bias)).astype(x.dtype)


def moved_statistics(params: Any, seen: Mapping[str, Any], trained: Any) -> Any:
  """Move the running averages of batch norm towards the statistics of a batch.

  Args:
    params: parameters, nested dictionaries.
    seen: the collection `STATISTICS` after a training forward pass. It is empty for a model without batch norm.
    trained: True for each parameter that is trained. Other averages stay.
  Returns: the parameters with moved averages.
  """
  if not isinstance(seen, Mapping):
    return _KEPT * params + (1 - _KEPT) * seen.mean(0) if trained else params
  return {**params, **{name: moved_statistics(params[name], found, trained[name]) for name, found in seen.items()}}


def _by_group(
  x: Float[Array, "batch height width channels"], epsilon: float
) -> Float[Array, "batch height width channels"]:
  channels = x.shape[-1]
  groups = math.gcd(channels, max(1, channels // _GROUP))
  grouped = rearrange(x, "b y x (g c) -> b y x g c", g=groups)
  mean = grouped.mean((1, 2, 4), keepdims=True)
  var = jnp.square(grouped - mean).mean((1, 2, 4), keepdims=True)
  return rearrange((grouped - mean) * lax.rsqrt(var + epsilon), "b y x g c -> b y x (g c)")


def _over_batch(x: Float[Array, "batch height width channels"]) -> tuple[Array, Array]:
  """Mean and variance of each channel over the global batch.

  Inside shard_map every device holds as many rows, so that the mean over devices is exact. Elsewhere `x` is the global
  batch already.
  """
  axes = tuple(jax.sharding.get_abstract_mesh().manual_axes)
  everywhere = (lambda value: lax.pmean(value, axes)) if axes else (lambda value: value)
  mean = everywhere(x.mean((0, 1, 2)))
  return mean, everywhere(jnp.square(x - _last(mean)).mean((0, 1, 2)))


def _last(x: Float[Array, "channels"]) -> Float[Array, "1 1 1 channels"]:
  return jnp.expand_dims(x, (0, 1, 2))
