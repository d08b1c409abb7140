"""Word embeddings whose table also scores words, unless scores have a table of their own."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.nn.cache import Cache, empty_cache
from mmjax.nn.dense import Dense
from mmjax.nn.embeddings import sincos_1d
from mmjax.nn.initial import embedding_init, kernel_init
from mmjax.nn.rotary import Rotation, word_rotation
from mmjax.nn.transformer import TransformerConfig


@dataclasses.dataclass(frozen=True)
class WordsConfig(TransformerConfig):
  """A transformer that reads and predicts words. Raises ValueError if the fields are inconsistent."""

  vocab_size: int = 30_524
  """Number of token ids."""
  max_length: int = 64
  """Longest sequence: the number of positions, and of positions in a cache."""
  pad_id: int = 0
  """Token id of padding, which comes after the words. It may be eos_id in a published model that only generates."""
  eos_id: int = 1
  """Token id of the end of the text. Generation stops there."""
  positions: Literal["learned", "sinusoidal", "rotary", "none"] = "learned"
  """Position embeddings. "sinusoidal": fixed sines and cosines, of size 1 beside the token embeddings (Vaswani et al.
  2017; use them with scale_embedding). "rotary": none, but queries and keys turn by their position (Su et al. 2021).
  With "none", a causal transformer can still learn some of the word order."""
  padding_positions: int = 0
  """Rows of the position table before that of the first word, which only padding has (OPT: 2). Used with
  positions="learned"."""
  rotary_temperature: float = 10_000.0
  """Slowest rotation: frequencies fall from 1 towards 1 / rotary_temperature. Used with positions="rotary"."""
  tied: bool = True
  """Score words with the table that embeds them (Press and Wolf 2017). False: with a table of its own."""
  scaled_logits: bool = False
  """Divide the scores of words by sqrt(width) (T5, where they are tied)."""
  embedding_dim: int | None = None
  """Dimension of the token embeddings, which linear layers map to width, and back for the scores (OPT-350M); None: that
  of width, without such layers."""
  scale_embedding: bool = False
  """Initialise token embeddings with variance 1 / width and multiply them by sqrt(width) (Vaswani et al. 2017, 3.4)."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.scale_embedding and self.init_scheme != "clip":
      raise ValueError(
        f'scale_embedding has its own initial embeddings: init_scheme="{self.init_scheme}" must be "clip"'
      )
    for name in ("pad_id", "eos_id"):
      if not 0 <= getattr(self, name) < self.vocab_size:
        raise ValueError(f"{name}={getattr(self, name)} must lie in [0, vocab_size={self.vocab_size})")
    if self.positions == "sinusoidal" and self.width % 2:
      raise ValueError(f'width={self.width} must be even for positions="sinusoidal"')
    if self.positions == "rotary" and self.attention_width // self.num_heads % 2:
      raise ValueError('the width of a head (head_dim, or width / num_heads) must be even for positions="rotary"')

  @property
  def table_width(self) -> int:
    """Dimension of the token embeddings."""
    return self.embedding_dim or self.width

  def mask(self, ids: Int[Array, "batch length"]) -> Bool[Array, "batch length"]:
    """True for each token that is not padding."""
    return ids != self.pad_id

  def rotation(self, length: int, start: Int[Array, "batch"] | None = None) -> Rotation | None:
    """Rotation of the queries and keys of words, with positions="rotary"."""
    if self.positions != "rotary":
      return None
    dim = self.attention_width // self.num_heads
    return word_rotation(length, dim, temperature=self.rotary_temperature, start=start)

  def cache(self, batch_size: int, length: int, *, depth: int | None = None, before: int = 0) -> Cache:
    """Empty cache for `length` words per row.

    Args:
      batch_size: number of rows.
      length: words per row, at most max_length.
      depth: number of blocks, if it differs from the configuration's.
      before: tokens per row that precede the words, such as those of an image.
    Raises:
      ValueError: length is larger than max_length.
    """
    if length > self.max_length:
      raise ValueError(f"a cache of {length} tokens is more than max_length={self.max_length}")
    config = self if depth is None else dataclasses.replace(self, depth=depth)
    return empty_cache(config, batch_size, before + length)


def refuse_word_options(config: WordsConfig, name: str) -> None:
  """Raise ValueError for options of the word embeddings that a model with its own scores of words does not have.

  Args:
    config: the configuration.
    name: name of the model, for the message.
  """
  for option in ("padding_positions", "scaled_logits", "embedding_dim"):
    if getattr(config, option) != getattr(WordsConfig, option):
      raise ValueError(f"{option}={getattr(config, option)} is not an option of {name}")


class Words(nn.Module):
  """Token embeddings and position embeddings.

  Parameters: token_embedding; position_embedding, with learned positions, and padding_position, which is in published
  weights and not used; output_embedding, if the scores are not tied; input_projection and output_projection, with
  embedding_dim.
  """

  config: WordsConfig

  def setup(self) -> None:
    c = self.config
    deviation = c.table_width**-0.5 if c.scale_embedding else 0.02
    init = embedding_init(c.init_scheme, deviation, c.table_width)
    self.table = self.param("token_embedding", init, (c.vocab_size, c.table_width), jnp.float32)
    self.scoring = self.table if c.tied else self.param("output_embedding", init, self.table.shape, jnp.float32)
    if c.embedding_dim is not None:
      linear = lambda dim, own: Dense(dim, kernel_init(c.init_scheme, own**-0.5), use_bias=False, dtype=c.dtype)
      self.input_projection = linear(c.width, c.table_width)
      self.output_projection = linear(c.table_width, c.width)
    if c.positions == "learned":
      init = embedding_init(c.init_scheme, 1.0 if c.scale_embedding else 0.01, c.width)
      self.places = self.param("position_embedding", init, (c.max_length, c.width), jnp.float32)
      if c.padding_positions:
        self.param("padding_position", init, (c.padding_positions, c.width), jnp.float32)
    elif c.positions == "sinusoidal":
      self.places = sincos_1d(c.max_length, c.width)

  def __call__(
    self, ids: Int[Array, "batch length"], start: Int[Array, "batch"] | None = None
  ) -> Float[Array, "batch length width"]:
    """Embeds words. `start` is the position of each row's first word (None: 0)."""
    return self.placed(jnp.take(self.table, ids, axis=0), start)

  def placed(
    self, x: Float[Array, "batch length table_width"], start: Int[Array, "batch"] | None = None
  ) -> Float[Array, "batch length width"]:
    """Adds what depends on the position of a token to token embeddings. `start` is as in `__call__`."""
    c, length = self.config, x.shape[1]
    if length > c.max_length:
      raise ValueError(f"text has {length} tokens, more than max_length={c.max_length}")
    if c.scale_embedding:
      x = x * c.width**0.5
    if c.embedding_dim is not None:
      x = self.input_projection(x).astype(jnp.float32)
    if c.positions in ("none", "rotary"):
      return x
    if start is None:
      return x + self.places[None, :length]
    return x + jnp.take(self.places, start[:, None] + jnp.arange(length, dtype=jnp.int32)[None], axis=0)

  def logits(self, tokens: Float[Array, "batch length width"]) -> Float[Array, "batch length vocab"]:
    """Scores of all words in float32: products with the word embeddings, or with the table for scores."""
    dtype = jnp.dtype(self.config.dtype)
    if self.config.scaled_logits:
      tokens = tokens * self.config.width**-0.5
    if self.config.embedding_dim is not None:
      tokens = self.output_projection(tokens)
    flat, table = tokens.reshape(-1, tokens.shape[-1]).astype(dtype), self.scoring.astype(dtype)
    # Two-dimensional operands: XLA's CPU backend is up to three times slower with three (see nn/dense.py).
    scores = jnp.einsum("nd,vd->nv", flat, table, preferred_element_type=jnp.float32)
    return scores.reshape(*tokens.shape[:-1], -1)
