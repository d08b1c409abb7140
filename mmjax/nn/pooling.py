"""Pooling: from token vectors to one vector per example."""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.nn.attention import MultiHeadAttention, attention
from mmjax.nn.dense import Dense
from mmjax.nn.initial import InitScheme, embedding_init, kernel_init
from mmjax.nn.mlp import MLP
from mmjax.nn.norm import LayerNorm
from mmjax.nn.transformer import TransformerConfig


def mean_pool(
  tokens: Float[Array, "batch length width"], mask: Bool[Array, "batch length"]
) -> Float[Array, "batch width"]:
  """Mean over real tokens, summed in float32. Zeros for an example that has none."""
  weights = mask.astype(jnp.float32)
  total = jnp.einsum("btd,bt->bd", tokens.astype(jnp.float32), weights)
  return (total / jnp.maximum(weights.sum(1), 1.0)[:, None]).astype(tokens.dtype)


def first_position(ids: Int[Array, "batch length"], token: int) -> Int[Array, "batch"]:
  """Position of the first `token` in each row; 0 if the row has none."""
  return jnp.argmax(ids == token, axis=1).astype(jnp.int32)


def eos_position(ids: Int[Array, "batch length"], *, eos_id: int, pad_id: int) -> Int[Array, "batch"]:
  """Position of the first end-of-text token in each row.

  In a row without one, this is the position of the last token that is not padding, or 0 if all are padding.
  """
  is_eos = ids == eos_id
  places = jnp.arange(ids.shape[1], dtype=jnp.int32)[None]
  last_real = jnp.max(jnp.where(ids != pad_id, places, 0), axis=1)
  return jnp.where(is_eos.any(1), jnp.argmax(is_eos, axis=1).astype(jnp.int32), last_real)


class TanhPool(nn.Module):
  """Linear layer and tanh on a pooled vector (BERT's pooler, Devlin et al. 2019)."""

  dtype: str
  init_scheme: InitScheme = "clip"

  @nn.compact
  def __call__(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
    width = pooled.shape[-1]
    init = kernel_init(self.init_scheme, width**-0.5)
    return jnp.tanh(Dense(width, init, dtype=self.dtype, name="dense")(pooled))


class AttentionPool(nn.Module):
  """One learned query attends to the tokens; a residual MLP follows (MAP head of SigLIP, Zhai et al. 2022)."""

  config: TransformerConfig

  @nn.compact
  def __call__(
    self, tokens: Float[Array, "batch length width"], mask: Bool[Array, "batch length"] | None
  ) -> Float[Array, "batch width"]:
    c = self.config
    probe = self.param("probe", nn.initializers.xavier_uniform(), (1, c.width), jnp.float32)
    query = jnp.broadcast_to(probe[None].astype(c.dtype), (tokens.shape[0], 1, c.width))
    init = kernel_init(c.init_scheme, c.width**-0.5)
    attend = MultiHeadAttention(
      num_heads=c.num_heads,
      qk_norm=c.qk_norm,
      out_init=init,
      dtype=c.dtype,
      implementation=c.attention,
      epsilon=c.norm_epsilon,
      init_scheme=c.init_scheme,
      name="attention",
    )
    x = attend(query, tokens, mask=mask)
    mlp = MLP(c.hidden, c.activation, init, c.dtype, c.init_scheme, name="mlp")
    return (x + mlp(LayerNorm(c.norm_epsilon, name="norm")(x)))[:, 0]


class ProbePool(nn.Module):
  """A learned query of each head attends to the tokens, and a linear layer follows (AIMv2, Fini et al. 2025).

  The query is used as it is, without a projection. Parameters: probe, key, value, out. Keys and values have biases
  unless `config.linear_bias` is False.
  """

  config: TransformerConfig

  @nn.compact
  def __call__(self, tokens: Float[Array, "batch length width"]) -> Float[Array, "batch width"]:
    c = self.config
    init = kernel_init(c.init_scheme, c.width**-0.5)
    probe = self.param("probe", nn.initializers.normal(0.02), (1, c.width), jnp.float32)
    query = jnp.broadcast_to(probe[None].astype(c.dtype), (tokens.shape[0], 1, c.width))
    project = lambda name: Dense(c.width, init, use_bias=c.linear_bias, dtype=c.dtype, name=name)(tokens)
    heads = lambda x: rearrange(x, "b l (h d) -> b l h d", h=c.num_heads)
    read = attention(*map(heads, (query, project("key"), project("value"))), implementation=c.attention)
    return Dense(c.width, init, dtype=c.dtype, name="out")(rearrange(read, "b 1 h d -> b (h d)"))


class QueryPool(nn.Module):
  """Learned queries attend to the tokens, one output each (CoCa's attentional pooler, Yu et al. 2022, section 3.2).

  Parameters: probe (the queries), attention, norm; query_norm, with `query_norm`.

  Attributes:
    config: width, heads and dtype of the attention.
    count: number of queries.
    query_norm: if True, normalise the queries first (open_clip).
  """

  config: TransformerConfig
  count: int
  query_norm: bool = False

  @nn.compact
  def __call__(
    self, tokens: Float[Array, "batch length token_width"], mask: Bool[Array, "batch length"] | None
  ) -> Float[Array, "batch count width"]:
    c = self.config
    init = embedding_init(c.init_scheme, c.width**-0.5, c.width)
    probe = self.param("probe", init, (self.count, c.width), jnp.float32)
    if self.query_norm:
      probe = LayerNorm(c.norm_epsilon, name="query_norm")(probe)
    query = jnp.broadcast_to(probe[None].astype(c.dtype), (tokens.shape[0], self.count, c.width))
    attend = MultiHeadAttention(
      num_heads=c.num_heads,
      qk_norm=c.qk_norm,
      out_init=kernel_init(c.init_scheme, c.width**-0.5),
      dtype=c.dtype,
      implementation=c.attention,
      epsilon=c.norm_epsilon,
      init_scheme=c.init_scheme,
      name="attention",
    )
    return LayerNorm(c.norm_epsilon, name="norm")(attend(query, tokens, mask=mask))
