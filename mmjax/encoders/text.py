"""Text transformer: token ids in, token vectors out (Radford et al. 2021, section 2.4)."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.config import TowerConfig
from mmjax.nn.flops import attention_pool_flops, transformer_flops
from mmjax.nn.pooling import AttentionPool, TanhPool, eos_position, first_position, mean_pool
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import Transformer, TransformerConfig
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class TextConfig(TransformerConfig, TowerConfig):
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
  pool: Literal["eos", "first", "last", "mean", "map", "eos_or_first", "argmax"] = "eos"
  """One vector per text: the first end-of-text token (where there is none: the last real one), the first place, the
  last place (padding or not: SigLIP), the mean, attention (MAP); or as published CLIP weights want it: the first
  end-of-text token, else the first place, or the place of the largest id."""
  pad_id: int = 0
  """Token id of padding."""
  mask_padding: bool = True
  """Nothing reads padding; False: it is read like any other token (SigLIP; CLIP, whose "!" has the padding's id)."""
  token_types: int = 0
  """Rows of a second embedding table, for the segment a token belongs to (BERT: 2); 0: there is none."""
  tanh_pool: bool = False
  """A linear layer and tanh on the pooled vector (BERT's pooler)."""
  eos_id: int = 49_407
  """Token id of the end of the text."""
  mask_id: int = -1
  """Token id of a hidden word (masked modelling); -1: there is none."""
  special_ids: tuple[int, ...] = ()
  """Token ids that are no words, and are never hidden (masked modelling)."""

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in ("pad_id",) * self.mask_padding + ("eos_id",) * (self.pool == "eos"):
      if not 0 <= getattr(self, name) < self.vocab_size:
        raise ValueError(f"{name}={getattr(self, name)} must lie in [0, vocab_size={self.vocab_size})")
    if self.causal and self.pool == "first":
      raise ValueError('pool="first" needs causal=False: the first token of a causal text reads nothing else')

  @property
  def pooled_width(self) -> int:
    """Width of the one vector per text."""
    return self.width

  def flops(self) -> int:
    pool = attention_pool_flops(self, self.max_length) if self.pool == "map" else 0
    return transformer_flops(self, self.max_length) + pool + (2 * self.width**2 if self.tanh_pool else 0)

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.max_length), jnp.int32)

  def build(self) -> nn.Module:
    return TextTransformer(self)


class TextTransformer(nn.Module):
  """Token ids [batch, length <= max_length] to `Encoded`; pad_id marks padding, wherever it stands."""

  config: TextConfig

  @nn.compact
  def __call__(
    self, ids: Int[Array, "batch length"], types: Int[Array, "batch length"] | None = None, *, rng: Rngs = None
  ) -> Encoded:
    """`types` say which segment a token belongs to (all to the first where they are left out)."""
    c = self.config
    length = ids.shape[1]
    if length > c.max_length:
      raise ValueError(f"text has {length} tokens, more than max_length={c.max_length}")
    # CLIP's standard deviations: 0.02 for tokens, 0.01 for positions.
    embedding = self.param("token_embedding", nn.initializers.normal(0.02), (c.vocab_size, c.width), jnp.float32)
    positions = self.param("position_embedding", nn.initializers.normal(0.01), (c.max_length, c.width), jnp.float32)
    mask = ids != c.pad_id if c.mask_padding else jnp.ones(ids.shape, bool)
    x = jnp.take(embedding, ids, axis=0) + positions[None, :length]
    if c.token_types:
      table = self.param("token_type_embedding", nn.initializers.normal(0.02), (c.token_types, c.width), jnp.float32)
      x = x + jnp.take(table, jnp.zeros_like(ids) if types is None else types, axis=0)
    readable = mask if c.mask_padding else None
    tokens, pooled = Transformer(c, causal=c.causal, name="transformer")(x, readable, rng=rng, pick=_pick(c, ids))
    if c.pool == "map":
      pooled = AttentionPool(c, name="pool")(tokens, readable)
    elif c.pool == "mean":
      pooled = mean_pool(tokens, mask)
    if c.tanh_pool:
      pooled = TanhPool(c.dtype, name="tanh_pool")(pooled)
    return Encoded(tokens, mask, pooled)

  def encode_text(
    self, ids: Int[Array, "batch length"], types: Int[Array, "batch length"] | None = None
  ) -> Float[Array, "batch dim"]:
    """The pooled vector alone, float32: what a tower without a partner embeds a text as."""
    return self(ids, types).pooled.astype(jnp.float32)


def _pick(c: TextConfig, ids: Int[Array, "batch length"]) -> int | Int[Array, "batch"]:
  """The place of the token that stands for the text (any, where the pooling reads them all)."""
  match c.pool:
    case "eos":
      return eos_position(ids, eos_id=c.eos_id, pad_id=c.pad_id)
    case "eos_or_first":
      return first_position(ids, c.eos_id)
    case "argmax":
      return jnp.argmax(ids, axis=1).astype(jnp.int32)
    case "last":
      return ids.shape[1] - 1
    case _:
      return 0
