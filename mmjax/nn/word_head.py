"""Head of masked language modelling (BERT): scores over the vocabulary for hidden words."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.nn.dense import Dense, matmul
from mmjax.nn.mlp import ACTIVATIONS
from mmjax.nn.norm import LayerNorm


class WordHead(nn.Module):
  """Linear layer, activation and norm, then scores from the embedding table and a bias per word (Devlin et al. 2019).

  Parameters: word_projection, norm, word_bias. The table is the text encoder's embedding table (tied weights).

  Attributes:
    epsilon: added to the variance in the norm.
    dtype: compute dtype. The scores are float32.
    activation: a key of `ACTIVATIONS`.
  """

  epsilon: float
  dtype: str
  activation: str = "gelu"

  @nn.compact
  def __call__(
    self, tokens: Float[Array, "batch places width"], table: Float[Array, "vocab table_width"]
  ) -> Float[Array, "batch places vocab"]:
    vocab, width = table.shape
    init = nn.initializers.normal(tokens.shape[-1] ** -0.5)
    x = Dense(width, init, dtype=self.dtype, name="word_projection")(tokens.astype(self.dtype))
    x = ACTIVATIONS[self.activation](x)
    scores = matmul(LayerNorm(self.epsilon, name="norm")(x), table.T, jnp.dtype(self.dtype))
    bias = self.param("word_bias", nn.initializers.zeros, (vocab,), jnp.float32)
    return scores.astype(jnp.float32) + bias[None, None]
