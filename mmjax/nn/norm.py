"""Layer normalisation with float32 statistics."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float


def layer_norm(
  x: Float[Array, "*batch width"],
  scale: Float[Array, "width"],
  bias: Float[Array, "width"] | None,
  *,
  epsilon: float,
) -> Float[Array, "*batch width"]:
  """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axis, in float32 (Ba et al. 2016)."""
  x32 = x.astype(jnp.float32)
  mean = x32.mean(-1, keepdims=True)
  variance = jnp.square(x32 - mean).mean(-1, keepdims=True)
  axes = range(x.ndim - 1)
  y = (x32 - mean) * lax.rsqrt(variance + epsilon) * jnp.expand_dims(scale, axes)
  return (y if bias is None else y + jnp.expand_dims(bias, axes)).astype(x.dtype)


class LayerNorm(nn.Module):
  """Layer normalisation; the result has the input's dtype.

  Attributes:
    epsilon: added to the variance.
    use_bias: whether there is a bias beside the scale.
  """

  epsilon: float = 1e-6
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32) if self.use_bias else None
    return layer_norm(x, scale, bias, epsilon=self.epsilon)


def normalize(x: Float[Array, "*batch dim"], *, epsilon: float = 1e-12) -> Float[Array, "*batch dim"]:
  """Unit-norm float32 rows: x * rsqrt(sum x^2 + epsilon), whose gradient is finite at zero as well."""
  x32 = x.astype(jnp.float32)
  return x32 * jax.lax.rsqrt(jnp.square(x32).sum(-1, keepdims=True) + epsilon)
