"""Gated fusion: a weighted sum of the modalities, whose weights depend on all of them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.nn.dense import Dense

_init = nn.initializers.lecun_normal()


class Gate(nn.Module):
  """sum_i g_i * tanh(W_i x_i), where the g_i sum to 1 (Arevalo et al. 2017, the gated multimodal unit, section 3.1).

  The gates are a softmax over the modalities of a linear map of all vectors. For two modalities this is the paper's
  z = sigmoid(W [x, y]) and 1 - z. With one gate per modality instead of one per feature, the gates can only weight
  whole modalities.

  Attributes:
    width: width of the result.
    per_feature: if True, one gate per feature of each modality (as in the paper); if False, one gate per modality.
    dtype: compute dtype. The softmax is float32.
  """

  width: int
  per_feature: bool
  dtype: str

  @nn.compact
  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    values = [
      jnp.tanh(Dense(self.width, _init, dtype=self.dtype, name=f"input_{i}_projection")(x))
      for i, x in enumerate(vectors)
    ]
    features = self.width if self.per_feature else 1
    gate = Dense(len(vectors) * features, _init, dtype=self.dtype, name="gate_projection")
    scores = rearrange(gate(jnp.concatenate(vectors, axis=-1)), "b (n d) -> b n d", n=len(vectors))
    shares = jax.nn.softmax(scores.astype(jnp.float32), axis=1).astype(self.dtype)
    return (shares * jnp.stack(values, axis=1)).sum(1)
