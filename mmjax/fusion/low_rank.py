"""Bilinear pooling with a low-rank weight tensor: MFB and MUTAN."""

import functools
import operator

import flax.linen as nn
import jax.numpy as jnp
from einops import reduce
from jax import Array
from jaxtyping import Float

from mmjax.fusion.power import power_normalize
from mmjax.nn.dense import Dense

_init = nn.initializers.lecun_normal()


class RankSum(nn.Module):
  """z_k = sum over r < rank of the product over modalities of (x_i^T u_ikr): a tensor whose slices have the given rank.

  For two modalities this is z_k = 1^T (U_k^T x * V_k^T y) (Yu et al. 2017, section 3.1). It takes any number of
  modalities.

  Attributes:
    width: width of the result.
    rank: number of products that are summed for each feature of the result.
    dtype: compute dtype.
  """

  width: int
  rank: int
  dtype: str

  @nn.compact
  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    factors = [
      Dense(self.width * self.rank, _init, dtype=self.dtype, name=f"input_{i}_projection")(x)
      for i, x in enumerate(vectors)
    ]
    return reduce(functools.reduce(operator.mul, factors), "b (k r) -> b k", "sum", r=self.rank)


class MFB(nn.Module):
  """Multimodal factorised bilinear pooling (Yu et al. 2017, section 3): `RankSum`, signed square root, unit length.

  The attributes are those of `RankSum`.
  """

  width: int
  rank: int
  dtype: str

  @nn.compact
  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    z = RankSum(self.width, self.rank, self.dtype, name="rank_sum")(*vectors)
    return power_normalize(z).astype(self.dtype)


class MUTAN(nn.Module):
  """Multimodal Tucker fusion (Ben-younes et al. 2017, section 3): z = sum_r (q~^T M_r) * (v~^T N_r).

  q~ = tanh(W_q q) and v~ = tanh(W_v v) are the factor matrices of the Tucker decomposition. `RankSum` is its core, each
  slice of which has the given rank. The output matrix W_o is the head that follows.

  The attributes are those of `RankSum`. The factors have `width` features as well.
  """

  width: int
  rank: int
  dtype: str

  @nn.compact
  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    factors = [
      jnp.tanh(Dense(self.width, _init, dtype=self.dtype, name=f"input_{i}_projection")(x))
      for i, x in enumerate(vectors)
    ]
    return RankSum(self.width, self.rank, self.dtype, name="core")(*factors)
