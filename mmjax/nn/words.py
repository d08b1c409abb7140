"""Words in, words out: one table embeds them and scores them (Press and Wolf 2017)."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.nn.cache import Cache, empty_cache
from mmjax.nn.transformer import TransformerConfig


@dataclasses.dataclass(frozen=True)
class WordsConfig(TransformerConfig):
  """A transformer over words that predicts words. Raises ValueError where the fields do not fit each other."""

  vocab_size: int = 30_524
  """Number of token ids."""
  max_length: int = 64
  """Longest sequence: the number of learned positions, and of places in a cache."""
  pad_id: int = 0
  """Token id of padding, which follows the words."""
  eos_id: int = 1
  """Token id of the end of the text, where generation stops."""
  positions: Literal["learned", "none"] = "learned"
  """Position embeddings; a causal transformer without any still learns something of the order."""
  scale_embedding: bool = False
  """Token embeddings begin with variance 1 / width and are multiplied by sqrt(width) (Vaswani et al. 2017, 3.4)."""

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in ("pad_id", "eos_id"):
      if not 0 <= getattr(self, name) < self.vocab_size:
        raise ValueError(f"{name}={getattr(self, name)} must lie in [0, vocab_size={self.vocab_size})")

  def mask(self, ids: Int[Array, "batch length"]) -> Bool[Array, "batch length"]:
    """True where there is a word."""
    return ids != self.pad_id

  def cache(self, batch_size: int, length: int, *, depth: int | None = None) -> Cache:
    """An empty cache for `length` tokens; of a stack of another depth, if that is given."""
    if length > self.max_length:
      raise ValueError(f"a cache of {length} tokens is more than max_length={self.max_length}")
    return empty_cache(self if depth is None else dataclasses.replace(self, depth=depth), batch_size, length)


class Words(nn.Module):
  """The table of words and that of places; parameters: token_embedding, position_embedding."""

  config: WordsConfig

  def setup(self) -> None:
    c = self.config
    deviation = c.width**-0.5 if c.scale_embedding else 0.02
    self.table = self.param("token_embedding", nn.initializers.normal(deviation), (c.vocab_size, c.width), jnp.float32)
    if c.positions == "learned":
      init = nn.initializers.normal(1.0 if c.scale_embedding else 0.01)
      self.places = self.param("position_embedding", init, (c.max_length, c.width), jnp.float32)

  def __call__(
    self, ids: Int[Array, "batch length"], start: Int[Array, "batch"] | None = None
  ) -> Float[Array, "batch length width"]:
    """Embedded words; `start` is the place of each row's first (0 where it is left out)."""
    c, length = self.config, ids.shape[1]
    if length > c.max_length:
      raise ValueError(f"text has {length} tokens, more than max_length={c.max_length}")
    x = jnp.take(self.table, ids, axis=0)
    if c.scale_embedding:
      x = x * c.width**0.5
    if c.positions == "none":
      return x
    if start is None:
      return x + self.places[None, :length]
    return x + jnp.take(self.places, start[:, None] + jnp.arange(length, dtype=jnp.int32)[None], axis=0)

  def logits(self, tokens: Float[Array, "batch length width"]) -> Float[Array, "batch length vocab"]:
    """Each word's score, float32: its product with the word's embedding."""
    dtype = jnp.dtype(self.config.dtype)
    flat, table = tokens.reshape(-1, tokens.shape[-1]).astype(dtype), self.table.astype(dtype)
    # Two-dimensional operands: XLA's CPU backend is up to three times slower with three (see nn/dense.py).
    scores = jnp.einsum("nd,vd->nv", flat, table, preferred_element_type=jnp.float32)
    return scores.reshape(*tokens.shape[:-1], -1)
