"""ModernBERT: a text transformer for long texts, most of whose blocks read a window of words (Warner et al. 2024)."""

import dataclasses
import functools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.encoders.text import TextConfig
from mmjax.nn.initial import embedding_init
from mmjax.nn.pooling import TanhPool, mean_pool
from mmjax.nn.rotary import word_rotation
from mmjax.nn.stochastic import Rngs, dropout, fold_in
from mmjax.nn.transformer import Block, norm_layer, refuse_block_options, rematerialised
from mmjax.types import Encoded

_APART = -1e30  # bias of the logits of words outside of the window
_FIXED = ("norm", "rms_norm", "relative_buckets", "layer_scale")


@dataclasses.dataclass(frozen=True)
class ModernTextConfig(TextConfig):
  """Configuration of ModernBERT; the defaults are those of the base size. Raises ValueError if fields do not fit.

  The blocks differ, so `scan` has no effect. Positions are rotary: `positions` must be "none".
  """

  width: int = 768
  depth: int = 22
  num_heads: int = 12
  mlp_dim: int | None = 1152
  mlp_gated: bool = True
  linear_bias: bool = False
  norm_bias: bool = False
  norm_epsilon: float = 1e-5
  input_norm: bool = True
  vocab_size: int = 50_368
  max_length: int = 8192
  causal: bool = False
  pool: Literal["first", "mean"] = "first"
  """Pooling to one vector per text: "first" (the [CLS] token) or "mean"."""
  pad_id: int = 50_283
  eos_id: int = 50_282
  positions: Literal["none"] = "none"
  window: int = 128
  """Words that a word of most blocks reads: window // 2 on each side, and itself."""
  global_every: int = 3
  """One block in this many, the first, reads all words; the others read the window."""
  rotary_temperature: float = 160_000.0
  """Slowest rotation of the blocks that read all words: frequencies fall from 1 towards 1 / rotary_temperature."""
  window_temperature: float = 10_000.0
  """Slowest rotation of the blocks that read a window."""

  def __post_init__(self) -> None:
    super().__post_init__()
    refuse_block_options(self, "ModernBERT", _FIXED)
    fixed = dict(causal=False, positions="none", count_positions=False, token_types=0, mask_padding=True)
    fixed |= dict(input_norm=True, scale_embedding=False, pooled_dim=None)
    for name, value in fixed.items():
      if getattr(self, name) != value:
        raise ValueError(f"{name}={getattr(self, name)} is not an option of ModernBERT, which has {value}")
    if self.pool not in ("first", "mean"):
      raise ValueError(f'pool="{self.pool}" must be "first" or "mean" for ModernBERT')
    if self.window < 2 or self.global_every < 1:
      raise ValueError(f"window={self.window} must be at least 2, and global_every={self.global_every} at least 1")
    if self.attention_width // self.num_heads % 2:
      raise ValueError("the width of a head (head_dim, or width / num_heads) must be even: positions are rotary")

  def build(self) -> nn.Module:
    return ModernText(self)


class ModernText(nn.Module):
  """ModernBERT. Maps token ids [batch, length <= max_length] to `Encoded`. `pad_id` may occur at any position.

  Parameters: token_embedding, transformer (input_norm, block_0, ..., norm); tanh_pool, with `config.tanh_pool`.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mmjax.encoders.modern_text import ModernText, ModernTextConfig
    >>> size = dict(width=8, depth=2, num_heads=2, mlp_dim=8, vocab_size=10, max_length=6)
    >>> config = ModernTextConfig(**size, pad_id=0, eos_id=1, window=2)
    >>> ids = jnp.asarray([[3, 4, 1, 0], [5, 1, 0, 0]])
    >>> encoded, _ = ModernText(config).init_with_output(jax.random.key(0), ids)
    >>> encoded.tokens.shape, encoded.pooled.shape
    ((2, 4, 8), (2, 8))
  """

  config: ModernTextConfig

  @nn.compact
  def __call__(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded:
    """Encodes texts.

    Args:
      ids: token ids.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
    Raises:
      ValueError: the text is longer than max_length.
    """
    c = self.config
    if ids.shape[1] > c.max_length:
      raise ValueError(f"text has {ids.shape[1]} tokens, more than max_length={c.max_length}")
    init = embedding_init(c.init_scheme, 0.02, c.width)
    table = self.param("token_embedding", init, (c.vocab_size, c.width), jnp.float32)
    mask = ids != c.pad_id
    tokens = WindowTransformer(c, name="transformer")(jnp.take(table, ids, axis=0), mask, rng=rng)
    pooled = tokens[:, 0] if c.pool == "first" else mean_pool(tokens, mask)
    if c.tanh_pool:
      pooled = TanhPool(c.dtype, c.init_scheme, name="tanh_pool")(pooled)
    return Encoded(tokens, mask, pooled)

  @nn.jit
  def encode_text(self, ids: Int[Array, "batch length"]) -> Float[Array, "batch dim"]:
    """Text embeddings of a text encoder without an image encoder: the pooled vectors, in float32."""
    return self(ids).pooled.astype(jnp.float32)


class WindowTransformer(nn.Module):
  """Pre-norm blocks of which every `global_every`th reads all tokens, and the others those at most window // 2 away.

  The first block has no norm before its attention: the norm of the embeddings takes its place.
  """

  config: ModernTextConfig

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch length width"], mask: Bool[Array, "batch length"], *, rng: Rngs = None
  ) -> Float[Array, "batch length width"]:
    c, length = self.config, x.shape[1]
    x = norm_layer(c, "input_norm")(x.astype(c.dtype))
    x = dropout(x, rate=c.dropout, rng=fold_in(rng, c.depth))  # the streams before belong to the blocks
    dim, x = c.attention_width // c.num_heads, rearrange(x, "b l w -> (b l) w")
    block = functools.partial(rematerialised(Block, c.remat, scan=False), c, False, length)
    places = jnp.arange(length, dtype=jnp.int32)
    far = jnp.abs(places[:, None] - places[None]) > c.window // 2
    window = jnp.broadcast_to(jnp.where(far, _APART, 0.0)[None, None], (1, c.num_heads, length, length))
    for layer in range(c.depth):
      everywhere = layer % c.global_every == 0
      temperature = c.rotary_temperature if everywhere else c.window_temperature
      rotations = (word_rotation(length, dim, temperature=temperature),) * 2
      bias = None if everywhere else window
      made = block(first_norm=layer > 0, name=f"block_{layer}")
      x = made(x, mask, rng, jnp.asarray(layer), None, rotations, bias)
    return rearrange(norm_layer(c, "norm")(x), "(b l) w -> b l w", l=length)
