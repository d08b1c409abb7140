"""Full bilinear pooling: all products of a feature of one modality and a feature of the other."""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float

from mmjax.nn.dense import Dense


class Bilinear(nn.Module):
  """z_k = x^T W_k y + b_k (Tenenbaum and Freeman 2000; Lin et al. 2015): a linear map of the outer product.

  It has width_x * width_y * width weights. The low-rank and compact forms exist to avoid this number.

  Attributes:
    width: width of the result.
    dtype: compute dtype.
  """

  width: int
  dtype: str

  @nn.compact
  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    if len(vectors) != 2:
      raise ValueError(f"bilinear fusion takes two modalities, not {len(vectors)}: use mfb, mutan or mcb for more")
    outer = rearrange(jnp.einsum("bi,bj->bij", *vectors), "b i j -> b (i j)")
    return Dense(self.width, nn.initializers.lecun_normal(), dtype=self.dtype, name="outer_projection")(outer)
