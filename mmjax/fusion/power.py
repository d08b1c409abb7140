"""Power normalisation, which reduces the heavy tails of products of features."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.nn.norm import normalize


def signed_sqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """sign(x) sqrt(|x|). The gradient at 0, which is infinite, is set to 0."""
  # Two `where`s: otherwise the root's infinite slope at 0 is multiplied by the 0 of the unused branch, which gives NaN.
  safe = jnp.where(x == 0, jnp.ones_like(x), x)
  return jnp.where(x == 0, jnp.zeros_like(x), jnp.sign(safe) * jnp.sqrt(jnp.abs(safe)))


def power_normalize(x: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
  """Signed square root, then unit length, in float32 (Perronnin et al. 2010; MCB, section 3.1; MFB, section 3)."""
  return normalize(signed_sqrt(x.astype(jnp.float32)))
