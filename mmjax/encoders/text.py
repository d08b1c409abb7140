"""Text transformer: token ids in, token vectors out (Radford et al. 2021, section 2.4)."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.encoders.config import TowerConfig
from mmjax.nn.dense import Dense
from mmjax.nn.embeddings import sines_and_cosines
from mmjax.nn.flops import attention_pool_flops, transformer_flops
from mmjax.nn.initial import embedding_init, kernel_init
from mmjax.nn.norm import LayerNorm
from mmjax.nn.pooling import AttentionPool, TanhPool, eos_position, first_position, mean_pool
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import Transformer, TransformerConfig
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class TextConfig(TransformerConfig, TowerConfig):
  """Configuration of a text transformer. Raises ValueError if the fields are inconsistent."""

  width: int = 512
  """Width of the token vectors."""
  num_heads: int = 8
  """Number of attention heads; must divide width."""
  vocab_size: int = 49_408
  """Number of token ids. A run sets it, max_length and the ids of special tokens to those of its tokenizer."""
  max_length: int = 77
  """Longest sequence: the number of learned positions."""
  causal: bool = True
  """A token reads only itself and earlier tokens (CLIP). False: it reads all tokens (SigLIP)."""
  pool: Literal["eos", "first", "last", "mean", "map", "eos_or_first", "argmax"] = "eos"
  """Pooling to one vector per text. "eos": the first end-of-text token or, if there is none, the last token that is not
  padding. "first": the first position. "last": the last position, padding or not (SigLIP). "mean": the mean over
  tokens. "map": attention by a learned query (MAP). Two more are for published CLIP weights: "eos_or_first" takes the
  first end-of-text token or, if there is none, the first position. "argmax" takes the position of the largest id.
  """
  pad_id: int = 0
  """Token id of padding."""
  mask_padding: bool = True
  """No token reads padding. False: padding is read like any other token (SigLIP; also CLIP, where "!" has the id of
  padding).
  """
  positions: Literal["learned", "sinusoidal", "none"] = "learned"
  """Position embeddings. "sinusoidal": fixed sines, then cosines, at frequencies from 1 to 1/10000 (M2M100). "none":
  only relative_buckets tell the order of the words (T5)."""
  count_positions: bool = False
  """Positions count only the tokens that are not padding; all padding has one position of its own (RoBERTa, MPNet,
  M2M100)."""
  scale_embedding: bool = False
  """Multiply token embeddings by sqrt(width) (Vaswani et al. 2017, 3.4)."""
  token_types: int = 0
  """Rows of a segment embedding table (BERT: 2); 0: no such table."""
  tanh_pool: bool = False
  """Apply a linear layer and tanh to the pooled vector (BERT's pooler)."""
  pooled_dim: int | None = None
  """Apply a layer norm and a linear layer of this width to the pooled vector (AltCLIP). None: no such layers."""
  eos_id: int = 49_407
  """Token id of the end of the text."""
  mask_id: int = -1
  """Token id that replaces hidden words in masked modelling; -1: none."""
  special_ids: tuple[int, ...] = ()
  """Token ids that are not words. Masked modelling never hides them."""

  def __post_init__(self) -> None:
    super().__post_init__()
    for name in ("pad_id",) * self.mask_padding + ("eos_id",) * (self.pool == "eos"):
      if not 0 <= getattr(self, name) < self.vocab_size:
        raise ValueError(f"{name}={getattr(self, name)} must lie in [0, vocab_size={self.vocab_size})")
    if self.count_positions and (self.positions == "none" or not self.mask_padding):
      raise ValueError('count_positions=True needs positions other than "none", and mask_padding=True')
    if self.positions == "sinusoidal" and (self.width % 2 or self.width < 4):
      raise ValueError(f'width={self.width} must be even and at least 4 for positions="sinusoidal"')
    if self.causal and self.pool == "first":
      raise ValueError('pool="first" needs causal=False: the first token of a causal text reads nothing else')

  @property
  def pooled_width(self) -> int:
    """Width of the pooled vector."""
    return self.pooled_dim or self.width

  def flops(self) -> int:
    pool = attention_pool_flops(self, self.max_length) if self.pool == "map" else 0
    heads = (2 * self.width**2 if self.tanh_pool else 0) + 2 * self.width * (self.pooled_dim or 0)
    return transformer_flops(self, self.max_length) + pool + heads

  def example(self, batch_size: int) -> Array:
    return jnp.zeros((batch_size, self.max_length), jnp.int32)

  def build(self) -> nn.Module:
    return TextTransformer(self)


class TextTransformer(nn.Module):
  """Text transformer. Maps token ids [batch, length <= max_length] to `Encoded`. `pad_id` may occur at any position.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mmjax.encoders import TextConfig, TextTransformer
    >>> config = TextConfig(width=8, depth=1, num_heads=2, vocab_size=10, max_length=6, eos_id=1)
    >>> ids = jnp.asarray([[3, 4, 1, 0], [5, 1, 0, 0]])
    >>> encoded, _ = TextTransformer(config).init_with_output(jax.random.key(0), ids)
    >>> encoded.tokens.shape, encoded.pooled.shape
    ((2, 4, 8), (2, 8))
    >>> encoded.mask.sum(1).tolist()
    [3, 2]
  """

  config: TextConfig

  @nn.compact
  def __call__(
    self,
    ids: Int[Array, "batch length"],
    types: Int[Array, "batch length"] | None = None,
    *,
    rng: Rngs = None,
    raw: bool = False,
    taps: int = 0,
  ) -> Encoded:
    """Encodes texts.

    Args:
      ids: token ids.
      types: segment of each token; None: all tokens belong to segment 0.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      raw: if True, the tokens are those before the last norm; the pooled vector is the same for pool="first".
      taps: if not 0, the tokens are those after each of this many last blocks, one block after the other; pool="first".
    Raises:
      ValueError: the text is longer than max_length.
    """
    c = self.config
    length = ids.shape[1]
    if length > c.max_length:
      raise ValueError(f"text has {length} tokens, more than max_length={c.max_length}")
    # CLIP's standard deviations: 0.02 for tokens, 0.01 for positions.
    token_init = embedding_init(c.init_scheme, 0.02, c.width)
    embedding = self.param("token_embedding", token_init, (c.vocab_size, c.width), jnp.float32)
    mask = ids != c.pad_id if c.mask_padding else jnp.ones(ids.shape, bool)
    x = jnp.take(embedding, ids, axis=0)
    if c.scale_embedding:
      x = x * c.width**0.5
    if c.positions != "none":
      x = x + self._positions(mask)
    if c.token_types:
      table = self.param("token_type_embedding", token_init, (c.token_types, c.width), jnp.float32)
      x = x + jnp.take(table, jnp.zeros_like(ids) if types is None else types, axis=0)
    readable = mask if c.mask_padding else None
    transformer = Transformer(c, causal=c.causal, name="transformer")
    tokens, pooled = transformer(x, readable, rng=rng, pick=_pick(c, ids), raw=raw, taps=taps)
    if c.pool == "map":
      pooled = AttentionPool(c, name="pool")(tokens, readable)
    elif c.pool == "mean":
      pooled = mean_pool(tokens, mask)
    if c.tanh_pool:
      pooled = TanhPool(c.dtype, c.init_scheme, name="tanh_pool")(pooled)
    if c.pooled_dim:
      pooled = LayerNorm(c.norm_epsilon, name="pooled_norm")(pooled)
      init = kernel_init(c.init_scheme, c.width**-0.5)
      pooled = Dense(c.pooled_dim, init, dtype=c.dtype, name="pooled_projection")(pooled)
    return Encoded(tokens, jnp.tile(mask, (1, taps)) if taps else mask, pooled)

  @nn.nowrap
  def _positions(self, mask: Bool[Array, "batch length"]) -> Float[Array, "#batch length width"]:
    """Position embeddings of the tokens. With count_positions, the first pad_id + 1 rows of the table come first."""
    c = self.config
    before = c.pad_id + 1 if c.count_positions else 0
    if c.positions == "sinusoidal":
      table = sines_and_cosines(before + c.max_length, c.width)
      table = table.at[c.pad_id].set(0.0) if before else table
    else:
      init = embedding_init(c.init_scheme, 0.01, c.width)
      table = self.param("position_embedding", init, (c.max_length, c.width), jnp.float32)
      if before:
        table = jnp.concatenate([self.param("padding_position", init, (before, c.width), jnp.float32), table])
    if not before:
      return table[None, : mask.shape[1]]
    return jnp.take(table, jnp.where(mask, jnp.cumsum(mask, axis=1, dtype=jnp.int32), 0) + c.pad_id, axis=0)

  @nn.jit
  def encode_text(
    self, ids: Int[Array, "batch length"], types: Int[Array, "batch length"] | None = None
  ) -> Float[Array, "batch dim"]:
    """Text embeddings of a text encoder without an image encoder: the pooled vectors, in float32."""
    return self(ids, types).pooled.astype(jnp.float32)


def _pick(c: TextConfig, ids: Int[Array, "batch length"]) -> int | Int[Array, "batch"]:
  """Position of the token that represents the text. Any position, if the pooling reads all tokens."""
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
