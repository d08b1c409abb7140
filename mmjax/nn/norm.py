"""Layer normalisation and response normalisation with float32 statistics, and the scale of a branch."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from mmjax.nn.forms import by_platform
from mmjax.nn.tpu import on_tpu

Residuals = tuple[Array, Array, Array, Array, Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def layer_norm(
  x: Float[Array, "*batch width"],
  scale: Float[Array, "width"],
  bias: Float[Array, "width"],
  epsilon: float,
  center: bool = True,
) -> Float[Array, "*batch width"]:
  """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis, in float32 (Ba et al. 2016).

  The backward pass keeps x and two numbers per row.

  Args:
    x: input.
    scale: scale of each feature.
    bias: bias of each feature.
    epsilon: added to the variance.
    center: if False, the mean is taken to be 0: root mean square normalisation (Zhang and Sennrich 2019, T5).
  Returns: the normalised input, in the dtype of `x`.
  """
  return _forward(x, scale, bias, epsilon, center)[0]


def _forward(x: Array, scale: Array, bias: Array, epsilon: float, center: bool) -> tuple[Array, Residuals]:
  x32, axes = x.astype(jnp.float32), range(x.ndim - 1)
  if center:
    mean, variance = by_platform(x32, tpu=_moments_at_once, default=_moments)
  else:
    variance = jnp.square(x32).mean(-1, keepdims=True)
    mean = jnp.zeros_like(variance)
  # Two numbers per row. Without these names, a rematerialised block would need two more passes over x for them.
  mean, inverse = checkpoint_name(mean, "norm"), checkpoint_name(lax.rsqrt(variance + epsilon), "norm")
  y = (x32 - mean) * inverse * jnp.expand_dims(scale, axes) + jnp.expand_dims(bias, axes)
  return y.astype(x.dtype), (x, scale, bias, mean, inverse)


def _moments(x: Array) -> tuple[Array, Array]:
  mean = x.mean(-1, keepdims=True)
  return mean, jnp.square(x - mean).mean(-1, keepdims=True)


def _moments_at_once(x: Array) -> tuple[Array, Array]:
  """Mean and variance in one pass, which a TPU runs while the preceding matrix product writes x.

  In float32, a mean far from 0 loses digits: the relative error of the variance is (mean / deviation)^2 times 1e-7.
  Flax's LayerNorm does the same.
  """
  mean = x.mean(-1, keepdims=True)
  return mean, jnp.maximum(jnp.square(x).mean(-1, keepdims=True) - jnp.square(mean), 0.0)


def _backward(epsilon: float, center: bool, residuals: Residuals, g: Array) -> tuple[Array, Array, Array]:
  del epsilon
  x, scale, _, mean, inverse = residuals
  axes = tuple(range(x.ndim - 1))
  g32, normal = g.astype(jnp.float32), (x.astype(jnp.float32) - mean) * inverse
  scaled = g32 * jnp.expand_dims(scale, axes)
  projected = normal * (scaled * normal).mean(-1, keepdims=True)
  moved = scaled - scaled.mean(-1, keepdims=True) if center else scaled
  dx = inverse * (moved - projected)
  return dx.astype(x.dtype), (g32 * normal).sum(axes), g32.sum(axes)


layer_norm.defvjp(_forward, _backward)


class LayerNorm(nn.Module):
  """Layer normalisation. The result has the dtype of the input.

  Attributes:
    epsilon: added to the variance.
    use_bias: if True, there is a bias as well as a scale.
    center: if False, divide by the root mean square without subtracting the mean.
  """

  epsilon: float = 1e-6
  use_bias: bool = True
  center: bool = True

  def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    return layer_norm(x, *self._parameters(x.shape[-1:]), self.epsilon, self.center)

  def beside(self, x: Float[Array, "rows width"]) -> tuple[Float[Array, "rows width"], Float[Array, "rows width"]]:
    """Returns x and the normalised x, for a network that uses both. A TPU then adds their gradients in one pass."""
    parameters = self._parameters(x.shape[-1:])
    if self.center and on_tpu():
      from mmjax.nn.norm_tpu import fits_kernel, norm_beside

      if fits_kernel(x.shape[-1]):
        return norm_beside(x, *parameters, self.epsilon)
    return x, layer_norm(x, *parameters, self.epsilon, self.center)

  @nn.compact
  def _parameters(self, width: tuple[int, ...]) -> tuple[Float[Array, "width"], Float[Array, "width"]]:
    scale = self.param("scale", nn.initializers.ones, width, jnp.float32)
    zeros = nn.initializers.zeros
    bias = self.param("bias", zeros, width, jnp.float32) if self.use_bias else jnp.zeros(width, jnp.float32)
    return scale, bias


class LayerScale(nn.Module):
  """Multiplies a branch by a learned vector, whose elements begin at `initial` (CaiT, Touvron et al. 2021)."""

  initial: float

  @nn.compact
  def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    scale = self.param("scale", nn.initializers.constant(self.initial), x.shape[-1:], jnp.float32)
    return x * jnp.expand_dims(scale.astype(x.dtype), range(x.ndim - 1))


class ResponseNorm(nn.Module):
  """Global response normalisation: x + scale * x * n / mean(n) + bias (Woo et al. 2023, section 4).

  n is the norm of each channel over the positions of an example, and the mean is over the channels. In float32.

  Parameters: scale and bias, initially zero.
  """

  @nn.compact
  def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width channels"]:
    scale, bias = (
      self.param(name, nn.initializers.zeros, x.shape[-1:], jnp.float32)[None, None, None] for name in ("scale", "bias")
    )
    x32 = x.astype(jnp.float32)
    # A positive number inside the root keeps the gradient finite where a channel is zero.
    response = jnp.sqrt(jnp.square(x32).sum((1, 2), keepdims=True) + 1e-24)
    relative = response / (response.mean(-1, keepdims=True) + 1e-6)
    return (x32 + scale * x32 * relative + bias).astype(x.dtype)


def normalize(x: Float[Array, "*batch dim"], *, epsilon: float = 1e-12) -> Float[Array, "*batch dim"]:
  """Scales float32 rows to unit norm: x * rsqrt(sum x^2 + epsilon). The gradient is finite at zero as well."""
  x32 = x.astype(jnp.float32)
  return x32 * lax.rsqrt(jnp.square(x32).sum(-1, keepdims=True) + epsilon)
