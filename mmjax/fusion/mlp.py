"""Fusion by an MLP over the concatenated vectors."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.nn.dense import Dense
from mmjax.nn.mlp import gelu


class MLPFusion(nn.Module):
  """W_2 gelu(W_1 [x_1, ..., x_n]): the modalities interact through the nonlinearity after their sum.

  Attributes:
    hidden: width between the two layers.
    width: width of the result.
    dtype: compute dtype.
  """

  hidden: int
  width: int
  dtype: str

  @nn.compact
  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    init = nn.initializers.lecun_normal()
    x = Dense(self.hidden, init, dtype=self.dtype, name="up_projection")(jnp.concatenate(vectors, axis=-1))
    return Dense(self.width, init, dtype=self.dtype, name="down_projection")(gelu(x))
