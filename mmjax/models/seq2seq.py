"""Encoder-decoder transformer: it reads a text and writes another one (Vaswani et al. 2017; T5, Raffel et al. 2020)."""

import dataclasses
from typing import Any

import flax.linen as nn
from jax import Array
from jaxtyping import Float, Int

from mmjax.models.config import ModelConfig
from mmjax.nn.cache import Cache
from mmjax.nn.decoder import Decoder
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import Transformer
from mmjax.nn.words import Words, WordsConfig
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class Seq2SeqConfig(ModelConfig):
  """An encoder and a decoder with one vocabulary. Raises ValueError if the fields are inconsistent."""

  text: WordsConfig = WordsConfig(width=512, depth=6, num_heads=8, scale_embedding=True)
  """The decoder and the vocabulary. norm="post" is the original's; "pre" trains without warm-up."""
  encoder_depth: int = 6
  """Blocks of the encoder. Its other fields are those of the decoder."""
  begin_id: int = 0
  """Token id with which every text that is written begins (training: data.tokenizer.bos_token; T5: that of padding)."""

  def __post_init__(self) -> None:
    if self.encoder_depth < 1:
      raise ValueError(f"encoder_depth={self.encoder_depth} must be at least 1")
    if not 0 <= self.begin_id < self.text.vocab_size:
      raise ValueError(f"begin_id={self.begin_id} must lie in [0, vocab_size={self.text.vocab_size})")

  def build(self) -> nn.Module:
    return Seq2Seq(self)


class Seq2Seq(nn.Module):
  """Encoder-decoder transformer.

  Parameters: words (one table for the input, the output and its scores), encoder, decoder.
  """

  config: Seq2SeqConfig

  def setup(self) -> None:
    c = self.config
    self.words = Words(c.text)
    self.encoder = Transformer(dataclasses.replace(c.text, depth=c.encoder_depth))
    self.decoder = Decoder(c.text)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the input text batch["text"]. `pooled` is the mean of the tokens."""
    ids = batch["text"]
    mask = self.config.text.mask(ids)
    tokens, _ = self.encoder(self.words(ids), mask, rng=fold_in(rng, 0))
    return {"text": Encoded(tokens, mask, mean_pool(tokens, mask))}

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
      context: encoded input. With a cache, None except in the first call.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      cache: from `empty_cache` or from the previous call; None: no cache.
      text: ignored; the decoder embeds the words itself.
    Returns: logits. With a cache, (logits, updated cache).
    """
    del text  # the decoder embeds the words itself
    x = self.words(ids, None if cache is None else cache.length)
    tokens, cache = self.decoder(x, context=context, causal=True, rng=fold_in(rng, 1), cache=cache)
    logits = self.words.logits(tokens)
    return logits if cache is None else (logits, cache)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> Cache:
    """Empty cache for `length` words of each of `batch_size` texts."""
    return self.config.text.cache(batch_size, length)

  def __call__(self, batch: Batch) -> Float[Array, "batch length vocab"]:
    """Runs every part of the model once, for `init`."""
    return self.decode(batch["text"], self.encode(batch)["text"])
