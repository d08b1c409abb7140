"""The two-layer perceptron of a transformer block."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.nn.dense import Dense, Initializer


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """x Phi(x), exactly, with the normal distribution function Phi (Hendrycks and Gimpel 2016), in float32."""
  return jax.nn.gelu(x.astype(jnp.float32), approximate=False).astype(x.dtype)


def gelu_tanh(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """The tanh approximation of GELU, as big_vision and SigLIP use it, computed in float32."""
  return jax.nn.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
  """x sigmoid(1.702 x), as OpenAI's CLIP weights need it, computed in float32."""
  x32 = x.astype(jnp.float32)
  return (x32 * jax.nn.sigmoid(1.702 * x32)).astype(x.dtype)


Activation = Callable[[Array], Array]
ACTIVATIONS: dict[str, Activation] = {
  "gelu": gelu,
  "gelu_tanh": gelu_tanh,
  "quick_gelu": quick_gelu,
}


class MLP(nn.Module):
  """down(activation(up(x))).

  Attributes:
    hidden: width between the two layers.
    activation: a key of `ACTIVATIONS`.
    down_init: initialiser of the second layer.
    dtype: compute dtype.
  """

  hidden: int
  activation: str
  down_init: Initializer
  dtype: str

  @nn.compact
  def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    width = x.shape[-1]
    up_init = nn.initializers.normal((2 * width) ** -0.5)  # CLIP's fc_std
    hidden = Dense(self.hidden, up_init, dtype=self.dtype, name="up")(x)
    return Dense(width, self.down_init, dtype=self.dtype, name="down")(ACTIVATIONS[self.activation](hidden))
