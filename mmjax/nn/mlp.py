"""MLP of a transformer block, and its activation functions."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from mmjax.nn.dense import Dense, Initializer
from mmjax.nn.initial import InitScheme, kernel_init
from mmjax.nn.norm import LayerNorm, ResponseNorm

ValueAndSlope = Callable[[Array], tuple[Array, Array]]


def _pointwise(value_and_slope: ValueAndSlope) -> Callable[[Array], Array]:
  """Elementwise function computed in float32, whose backward pass keeps only the input.

  `value_and_slope` returns the function's value and derivative. The compiler removes the one that is not used.
  """

  @jax.custom_vjp
  def apply(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return value_and_slope(x.astype(jnp.float32))[0].astype(x.dtype)

  def forward(x: Array) -> tuple[Array, Array]:
    return apply(x), x

  def backward(x: Array, g: Array) -> tuple[Array]:
    return ((g.astype(jnp.float32) * value_and_slope(x.astype(jnp.float32))[1]).astype(x.dtype),)

  apply.defvjp(forward, backward)
  return apply


def _gelu(x: Array) -> tuple[Array, Array]:
  # With erf. jax.nn.gelu uses erfc, which XLA's CPU backend computes three times slower.
  cdf = 0.5 * (1.0 + lax.erf(x * 0.5**0.5))
  return x * cdf, cdf + x * jnp.exp(-0.5 * x * x) * (2.0 * jnp.pi) ** -0.5


def _gelu_tanh(x: Array) -> tuple[Array, Array]:
  c = (2.0 / jnp.pi) ** 0.5
  t = jnp.tanh(c * (x + 0.044715 * x * x * x))
  return 0.5 * x * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3 * 0.044715 * x * x)


def _quick_gelu(x: Array) -> tuple[Array, Array]:
  s = jax.nn.sigmoid(1.702 * x)
  return x * s, s + 1.702 * x * s * (1.0 - s)


def _silu(x: Array) -> tuple[Array, Array]:
  s = jax.nn.sigmoid(x)
  return x * s, s + x * s * (1.0 - s)


gelu = _pointwise(_gelu)  # x Phi(x), with the normal distribution function Phi (Hendrycks and Gimpel 2016)
gelu_tanh = _pointwise(_gelu_tanh)  # the tanh approximation of GELU, used by big_vision and SigLIP
quick_gelu = _pointwise(_quick_gelu)  # x sigmoid(1.702 x), used by OpenAI's CLIP weights
silu = _pointwise(_silu)  # x sigmoid(x), also called swish; with a gate, SwiGLU
ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu, "silu": silu}


class MLP(nn.Module):
  """Two linear layers with an activation between them: down(activation(up(x))).

  With `gated`, a third layer is the activation's input: down(activation(gate(x)) * up(x)) (Shazeer 2020).

  Parameters: up, down; gate, with `gated`; norm, with `norm_epsilon`; input_norm, with `input_norm_epsilon`;
  response_norm, with `response_norm`.

  Attributes:
    hidden: width between the two layers.
    activation: a key of `ACTIVATIONS`.
    down_init: initialiser of the second layer.
    dtype: compute dtype.
    init_scheme: initialiser of the first layer (see `TransformerConfig.init_scheme`).
    gated: if True, multiply the hidden layer by the activation of a gate.
    norm_epsilon: layer norm of the second layer's input, with this epsilon (sub-LN, Wang et al. 2022); None: no norm.
    input_norm_epsilon: layer norm of the input, with this epsilon; None: no norm.
    response_norm: if True, response normalisation of the second layer's input, for [batch, height, width, channels].
  """

  hidden: int
  activation: str
  down_init: Initializer
  dtype: str
  init_scheme: InitScheme = "clip"
  gated: bool = False
  norm_epsilon: float | None = None
  input_norm_epsilon: float | None = None
  response_norm: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    width = x.shape[-1]
    if self.input_norm_epsilon is not None:
      x = LayerNorm(self.input_norm_epsilon, name="input_norm")(x)
    up_init = kernel_init(self.init_scheme, (2 * width) ** -0.5)  # CLIP's fc_std
    layer = functools.partial(Dense, self.hidden, up_init, dtype=self.dtype, keep_as="hidden")
    activation, up = ACTIVATIONS[self.activation], layer(name="up")(x)
    hidden = activation(layer(name="gate")(x)) * up if self.gated else activation(up)
    if self.norm_epsilon is not None:
      hidden = LayerNorm(self.norm_epsilon, name="norm")(hidden)
    if self.response_norm:
      hidden = ResponseNorm(name="response_norm")(hidden)
    return Dense(width, self.down_init, dtype=self.dtype, name="down")(hidden)
