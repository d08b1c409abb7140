"""BLIP-2's captioning model: a language model reads an image through learned queries (Li et al. 2023, section 3.2)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Int

from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.errors import ConfigError
from mmjax.models.blip2 import Blip2RetrievalConfig, QFormer, QFormerConfig
from mmjax.models.config import ModelConfig, image_size
from mmjax.nn.cache import Cache
from mmjax.nn.decoder import Decoder
from mmjax.nn.dense import Dense
from mmjax.nn.initial import embedding_init
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import Transformer
from mmjax.nn.words import Words, WordsConfig
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class Blip2CaptionerConfig(ModelConfig):
  """An image encoder, a Q-Former, and a language model. Raises ValueError if the fields are inconsistent.

  The defaults are those of blip2-opt-2.7b, whose language model is OPT. With encoder_depth, it is a T5.
  """

  image: ViTConfig = Blip2RetrievalConfig.image
  """The image encoder."""
  qformer: QFormerConfig = QFormerConfig(vocab_size=30_522)
  """The Q-Former, which reads no text here."""
  text: WordsConfig = WordsConfig(
    width=2560,
    depth=32,
    num_heads=32,
    activation="relu",
    norm_epsilon=1e-5,
    vocab_size=50_304,
    max_length=2016,
    padding_positions=2,
    pad_id=1,
    eos_id=50_118,
  )
  """The language model, or its decoder. max_length counts words, without the queries."""
  encoder_depth: int = 0
  """Blocks of the language model's encoder (T5). 0: it has none, and the queries precede the words (OPT)."""
  begin_id: int = 2
  """Token id with which every text begins (training: data.tokenizer.bos_token; T5: that of padding)."""
  image_id: int | None = None
  """Token id that stands for a query in the prompts of transformers. This model does not read it."""

  def __post_init__(self) -> None:
    c = self.text
    if self.encoder_depth < 0:
      raise ValueError(f"encoder_depth={self.encoder_depth} must not be negative")
    if not self.encoder_depth and c.positions != "learned":
      raise ValueError(f'a language model without an encoder needs positions="learned", not {c.positions!r}')
    if c.embedding_dim is not None or c.scale_embedding:
      raise ValueError("queries precede the words as they are: set embedding_dim=None and scale_embedding=False")
    if not 0 <= self.begin_id < c.vocab_size:
      raise ValueError(f"begin_id={self.begin_id} must lie in [0, vocab_size={c.vocab_size})")

  def example(self, batch_size: int) -> dict[str, Array]:
    """Make a batch of zeros with the arrays that the model encodes, for `init`."""
    side = image_size(self)
    image = jnp.zeros((batch_size, side, side, 3), jnp.float32)
    return {"image": image, "text": jnp.zeros((batch_size, self.text.max_length), jnp.int32)}

  def build(self) -> nn.Module:
    return Blip2Reader(self) if self.encoder_depth else Blip2Captioner(self)


class Blip2Captioner(nn.Module):
  """transformers' Blip2ForConditionalGeneration with a causal language model (OPT).

  The queries' vectors precede the words in one sequence. Questions are the beginning of the text that `decode`
  continues.

  Parameters: image, qformer, language_projection, query_position (the queries' positions), words, decoder.
  """

  config: Blip2CaptionerConfig

  def setup(self) -> None:
    c = self.config
    self.image, self.qformer = ViT(c.image), QFormer(c.qformer)
    init = nn.initializers.normal(c.qformer.width**-0.5)
    self.language_projection = Dense(c.text.width, init, dtype=c.text.dtype)
    self.words, self.decoder = Words(c.text), Decoder(c.text)
    if not c.encoder_depth:
      init = embedding_init(c.text.init_scheme, 0.01, c.text.width)
      shape = (c.qformer.queries, c.text.width)
      self.query_position = self.param("query_position", init, shape, jnp.float32)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the images of the batch: one token for each query, in the width of the language model."""
    image = self.image(batch["image"], rng=fold_in(rng, 0))
    tokens = self.language_projection(self.qformer(None, image).tokens).astype(jnp.float32)
    return {"image": Encoded(tokens, jnp.ones(tokens.shape[:2], bool), tokens[:, 0])}

  def decode(
    self,
    ids: Int[Array, "batch length"],
    image: Encoded | None,
    *,
    rng: Rngs = None,
    cache: Cache | None = None,
    text: Encoded | None = None,
  ) -> Any:
    """Float32 logits [batch, length, vocab] of the word that follows each of `ids`.

    Args:
      ids: token ids. With a cache, the ids that follow the cached ones.
      image: encoded image. With a cache, None except in the first call.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      cache: from `empty_cache` or from the previous call; None: no cache.
      text: ignored; the decoder embeds the words itself.
    Returns: logits. With a cache, (logits, updated cache).
    Raises: ConfigError: there is no image, neither here nor in the cache.
    """
    del text  # the decoder embeds the words itself
    self._check(image, cache)
    queries, rng = self.config.qformer.queries, fold_in(rng, 1)
    words = self.words(ids, None if cache is None else cache.length)
    if image is not None:
      words = jnp.concatenate([image.tokens + self.query_position[None], words], axis=1)
    elif cache is not None:  # the length of a cache counts words
      cache = dataclasses.replace(cache, length=cache.length + queries)
    tokens, cache = self.decoder(words, causal=True, rng=rng, cache=cache)
    logits = self.words.logits(tokens if image is None else tokens[:, queries:])
    if cache is None:
      return logits
    mask = cache.context_mask if image is None else image.mask  # of what is in the cache, so that it is known there
    return logits, dataclasses.replace(cache, length=cache.length - queries, context_mask=mask)

  @nn.nowrap
  def _check(self, context: Encoded | None, cache: Cache | None) -> None:
    if context is None and (cache is None or cache.context_mask is None):
      raise ConfigError("BLIP-2 writes of an image: give its encoding, with a cache in the first call")

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> Cache:
    """Empty cache for `length` words of each of `batch_size` texts, and for the queries."""
    return self.config.text.cache(batch_size, length, before=self.config.qformer.queries)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model once, for `init`."""
    return {"words": self.decode(batch["text"], self.encode(batch)["image"])}


class Blip2Reader(Blip2Captioner):
  """transformers' Blip2ForConditionalGeneration with an encoder-decoder (T5).

  The encoder reads the queries' vectors, and the words of a question or prompt after them. `fuse` puts the two
  together. The decoder writes.

  Parameters: image, qformer, language_projection, words, encoder, decoder.
  """

  def setup(self) -> None:
    super().setup()
    c = self.config
    self.encoder = Transformer(dataclasses.replace(c.text, depth=c.encoder_depth))

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the images of the batch and embeds its questions. The batch may contain only one of the two."""
    encoded = super().encode(batch, rng=rng) if "image" in batch else {}
    if "text" in batch:
      words = self.words(batch["text"])
      encoded["text"] = Encoded(words, self.config.text.mask(batch["text"]), words[:, 0])
    return encoded

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """{"text": the image's tokens, then those of the question}, for `decode`. `pooled` is the first of them."""
    del rng
    parts = [encoded[name] for name in ("image", "text")]
    tokens = jnp.concatenate([part.tokens for part in parts], axis=1)
    return {"text": Encoded(tokens, jnp.concatenate([part.mask for part in parts], axis=1), tokens[:, 0])}

  def decode(
    self,
    ids: Int[Array, "batch length"],
    context: Encoded | None,
    *,
    rng: Rngs = None,
    cache: Cache | None = None,
    text: Encoded | None = None,
  ) -> Any:
    """Float32 logits [batch, length, vocab] of the word that follows each of `ids`.

    Args:
      ids: token ids. With a cache, the ids that follow the cached ones.
      context: from `fuse`, or the encoded image alone; the encoder reads it. With a cache, None except in the first
        call.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      cache: from `empty_cache` or from the previous call; None: no cache.
      text: ignored; the decoder embeds the words itself.
    Returns: logits. With a cache, (logits, updated cache).
    Raises: ConfigError: there is no context, neither here nor in the cache.
    """
    del text  # the decoder embeds the words itself
    self._check(context, cache)
    if context is not None:
      tokens, _ = self.encoder(context.tokens, context.mask, rng=fold_in(rng, 2))
      context = Encoded(tokens, context.mask, tokens[:, 0])
    words = self.words(ids, None if cache is None else cache.length)
    tokens, cache = self.decoder(words, context=context, causal=True, rng=fold_in(rng, 1), cache=cache)
    logits = self.words.logits(tokens)
    return logits if cache is None else (logits, cache)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> Cache:
    """Empty cache for `length` words of each of `batch_size` texts."""
    return self.config.text.cache(batch_size, length)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model once, for `init`."""
    return {"words": self.decode(batch["text"], self.fuse(self.encode(batch))["text"])}
