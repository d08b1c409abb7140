"""Flamingo: a frozen language model that reads images among its words (Alayrac et al. 2022)."""

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from mmjax.errors import ConfigError
from mmjax.models.interleaved import InterleavedConfig, Interleaving
from mmjax.nn.cache import Cache, KeyValue
from mmjax.nn.gated_cross import GatedCrossBlock, last_image_mask
from mmjax.nn.resampler import Resampler
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import TransformerConfig
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class FlamingoConfig(InterleavedConfig):
  """A frozen image tower, a resampler, and a frozen language model with gated cross-attention between its blocks."""

  resampler: TransformerConfig = TransformerConfig(width=1024, depth=6, num_heads=16, linear_bias=False)
  """Blocks of the perceiver resampler. Its width is that of the image tokens that the text reads."""
  latents: int = 64
  """Tokens of an image, or of a video."""
  cross_every: int = 1
  """Gated cross-attention comes before every so many blocks of the language model, beginning with the first
  (Flamingo-3B: 1, 9B: 4, 80B: 7)."""
  cross_heads: int = 8
  """Attention heads of the gated cross-attention."""
  cross_head_dim: int | None = 64
  """Dimension of such a head. None: the width of the language model / cross_heads."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.latents < 1 or self.cross_every < 1:
      raise ValueError(f"latents={self.latents} and cross_every={self.cross_every} must be at least 1")
    _ = self.cross  # refuses what does not fit

  @property
  def cross(self) -> TransformerConfig:
    """Configuration of the gated blocks, which have no biases."""
    text = self.text
    return TransformerConfig(
      width=text.width,
      depth=-(-text.depth // self.cross_every),
      num_heads=self.cross_heads,
      head_dim=self.cross_head_dim,
      linear_bias=False,
      dtype=text.dtype,
    )

  def build(self) -> nn.Module:
    return Flamingo(self)


@flax.struct.dataclass
class FlamingoCache:
  """Cache of the language model and of the images.

  Attributes:
    language: cache of the language model.
    seen: number of images that each row has read.
    images: keys and values of the images, for each gated block. Empty before the first call.
  """

  language: Cache
  seen: Int[Array, "batch"]
  images: tuple[KeyValue | None, ...] = ()


class Flamingo(Interleaving):
  """Model of a FlamingoConfig.

  A word reads the last image before it. Words before the first image read none. At first the gates are closed, and the
  logits of the words are those of the language model.

  Parameters: image, language, token_embedding, resampler, and cross_0, cross_1, ... (the gated blocks).

  Example:
    >>> import jax
    >>> from mmjax.encoders import ViTConfig
    >>> from mmjax.models.interleaved import InterleavedWordsConfig
    >>> tiny = dict(width=8, depth=1, num_heads=2)
    >>> text = InterleavedWordsConfig(vocab_size=52, max_length=4, image_id=50, **tiny)
    >>> image = ViTConfig(image_size=8, patch_size=4, **tiny)
    >>> config = FlamingoConfig(image=image, text=text, resampler=TransformerConfig(**tiny), latents=2)
    >>> config.build().init_with_output(jax.random.key(0), config.example(2))[0].shape
    (2, 4, 52)
  """

  config: FlamingoConfig

  def setup(self) -> None:
    super().setup()
    c = self.config
    self.resampler = Resampler(c.resampler, c.latents, c.frames)
    self.cross = [GatedCrossBlock(c.cross) for _ in range(c.cross.depth)]

  @nn.nowrap
  def connected(self, features: Array, mask: Array) -> Array:
    """Latents of each image."""
    return self.resampler(features, mask)

  def decode(
    self,
    ids: Int[Array, "batch length"],
    context: Encoded | None,
    *,
    rng: Rngs = None,
    cache: FlamingoCache | None = None,
    text: Encoded | None = None,
  ) -> Any:
    """Float32 logits [batch, length, vocab] of the word that follows each of `ids`.

    Args:
      ids: token ids, with an image token for each image. With a cache, those that follow the cached ones.
      context: encoded images. None: there are none, or the cache has them.
      rng: ignored; the language model is frozen, and runs as in evaluation.
      cache: from `empty_cache` or from the previous call. None: no cache.
      text: ignored; the language model embeds the words itself.
    Returns: logits. With a cache, (logits, updated cache).
    Raises: ConfigError: the number of image tokens in `context` is not a multiple of latents.
    """
    del rng, text
    c = self.config
    seen = jnp.cumsum(self.is_image(ids), axis=1, dtype=jnp.int32)
    known: tuple[KeyValue | None, ...] = () if cache is None else cache.images
    if cache is not None:
      seen = seen + cache.seen[:, None]
    images = None if context is None else context.tokens.astype(c.text.dtype)
    count = images.shape[1] if images is not None else (known[0].key.shape[2] if known and known[0] else 0)
    if count % c.latents:
      raise ConfigError(f"the context has {count} tokens, which are no images of latents={c.latents} tokens")
    readable = last_image_mask(seen, count // c.latents, c.latents) if count else None
    read: list[KeyValue | None] = []

    def before(layer: int, x: Array) -> Array:
      if layer % c.cross_every:
        return x
      place = layer // c.cross_every
      x, memory = self.cross[place](x, images, readable, known[place] if known else None)
      read.append(memory)
      return x

    tokens, language = self.language.through(
      self.embed(ids), cache=None if cache is None else cache.language, before=before
    )
    logits = self.scores(tokens)
    if cache is None:
      return logits
    assert language is not None
    return logits, FlamingoCache(language, seen[:, -1], tuple(read))

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> FlamingoCache:
    """Empty cache for `length` tokens of each of `batch_size` texts."""
    cache = self.config.text.cache(batch_size, length)
    return FlamingoCache(cache, jnp.zeros((batch_size,), jnp.int32))
