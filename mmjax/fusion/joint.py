"""One transformer over the tokens of all modalities: over raw embeddings (early), or over encoder outputs (merged)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmjax.fusion.tokens import check_width, join, with_tokens
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import Transformer, TransformerConfig
from mmjax.types import Encoded


class JointTransformer(nn.Module):
  """Transformer in which every token attends to the tokens of all modalities.

  This is merged attention (Hendricks et al. 2021; Dou et al. 2022, METER, section 3.2), without embeddings that
  distinguish the modalities. Tokens must have the configuration's width. The result holds them in the order of the
  modalities. `pooled` is the first token of the first modality.
  """

  config: TransformerConfig

  @nn.compact
  def __call__(self, *encoded: Encoded, rng: Rngs = None) -> Encoded:
    check_width(encoded, self.config.width)
    tokens, mask = join(encoded, self.config.dtype)
    tokens, first = Transformer(self.config, name="transformer")(tokens, mask, rng=rng)
    return Encoded(tokens, mask, first)


class EarlyFusion(nn.Module):
  """One transformer from the embeddings on (Kim et al. 2021, ViLT, equations 2 and 3): token + modality type embedding.

  The inputs are embeddings that already contain position embeddings. This module adds the type embedding. `pooled` is
  the first token of the first modality (in ViLT the class token of the text, so the text comes first).
  """

  config: TransformerConfig

  @nn.compact
  def __call__(self, *encoded: Encoded, rng: Rngs = None) -> Encoded:
    c = self.config
    check_width(encoded, c.width)
    types = self.param("token_type_embedding", nn.initializers.normal(0.02), (len(encoded), c.width), jnp.float32)
    typed = [with_tokens(e, e.tokens.astype(c.dtype) + _row(types, i, c.dtype)) for i, e in enumerate(encoded)]
    return JointTransformer(c, name="joint")(*typed, rng=rng)


class MergedAttention(nn.Module):
  """Fusion encoder over encoder outputs, with its own class token (Singh et al. 2022, FLAVA, section 3.1).

  A linear map first brings each modality's tokens to the common width, so encoders may have any width. `pooled` is the
  class token. It is not among the tokens.
  """

  config: TransformerConfig

  @nn.compact
  def __call__(self, *encoded: Encoded, rng: Rngs = None) -> Encoded:
    c = self.config
    init = nn.initializers.normal(c.width**-0.5)
    batch = encoded[0].tokens.shape[0]
    start = jnp.broadcast_to(
      _row(self.param("class_token", init, (1, c.width), jnp.float32), 0, c.dtype), (batch, 1, c.width)
    )
    projected = [
      with_tokens(
        e, Dense(c.width, nn.initializers.lecun_normal(), dtype=c.dtype, name=f"input_{i}_projection")(e.tokens)
      )
      for i, e in enumerate(encoded)
    ]
    fused = JointTransformer(c, name="joint")(
      Encoded(start, jnp.ones((batch, 1), bool), start[:, 0]), *projected, rng=rng
    )
    return Encoded(fused.tokens[:, 1:], fused.mask[:, 1:], fused.pooled)


def _row(table: Array, row: int, dtype: str) -> Array:
  """Row `row` of the table, [1, 1, width]."""
  return table[None, None, row].astype(dtype)
