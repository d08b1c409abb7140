"""Text transformer: token ids in, token vectors out (Radford et al. 2021, section 2.4)."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from mmjax.nn.pooling import AttentionPool, eos_position, mean_pool
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import Transformer, TransformerConfig
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class TextConfig(TransformerConfig):
  """A text transformer. Raises ValueError where the fields do not fit each other."""

  width: int = 512
  """Width of the token vectors."""
  num_heads: int = 8
  """Attention heads; must divide width."""
  vocab_size: int = 49_408
  """Number of token ids."""
  max_length: int = 77
  """Longest sequence: the number of learned positions."""
  causal: bool = True
  """A token reads only earlier tokens (CLIP); otherwise all of them (SigLIP)."""
  pool: Literal["eos", "first", "mean", "map"] = "eos"
  """One vector per text: the first end-of-text token, the first token, the mean, or attention (MAP)."""
  pad_id: int = 0
  """Token id of padding, which nothing reads."""
  eos_id: int = 49_407
  """Token id of the end of the text."""

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in ("pad_id", "eos_id"):
      if not 0 <= getattr(self, name) < self.vocab_size:
        raise ValueError(f"{name}={getattr(self, name)} must lie in [0, vocab_size={self.vocab_size})")
    if self.causal and self.pool == "first":
      raise ValueError('pool="first" needs causal=False: the first token of a causal text reads nothing else')


class TextTransformer(nn.Module):
  """Token ids [batch, length <= max_length] to `Encoded`; pad_id marks padding, wherever it stands."""

  config: TextConfig

  @nn.compact
  def __call__(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded:
    c = self.config
    length = ids.shape[1]
    if length > c.max_length:
      raise ValueError(f"text has {length} tokens, more than max_length={c.max_length}")
    # CLIP's standard deviations: 0.02 for tokens, 0.01 for positions.
    embedding = self.param("token_embedding", nn.initializers.normal(0.02), (c.vocab_size, c.width), jnp.float32)
    positions = self.param("position_embedding", nn.initializers.normal(0.01), (c.max_length, c.width), jnp.float32)
    mask = ids != c.pad_id
    x = jnp.take(embedding, ids, axis=0) + positions[None, :length]
    pick = 0 if c.pool != "eos" else eos_position(ids, eos_id=c.eos_id, pad_id=c.pad_id)
    tokens, pooled = Transformer(c, causal=c.causal, name="transformer")(x, mask, rng=rng, pick=pick)
    if c.pool == "map":
      pooled = AttentionPool(c, name="pool")(tokens, mask)
    elif c.pool == "mean":
      pooled = mean_pool(tokens, mask)
    return Encoded(tokens, mask, pooled)
