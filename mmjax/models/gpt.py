"""GPT: a causal language model (Radford et al. 2018, 2019); with other options Llama (Touvron et al. 2023)."""

import dataclasses
from typing import Any

import flax.linen as nn
from jax import Array
from jaxtyping import Float, Int

from mmjax.errors import ConfigError
from mmjax.models.config import ModelConfig
from mmjax.nn.cache import Cache
from mmjax.nn.decoder import Decoder
from mmjax.nn.pooling import eos_position
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import take_token
from mmjax.nn.words import Words, WordsConfig
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class GptConfig(ModelConfig):
  """Configuration of a causal language model."""

  text: WordsConfig = WordsConfig()
  """The transformer and its vocabulary."""

  def build(self) -> nn.Module:
    return Gpt(self)


class Gpt(nn.Module):
  """Causal language model. Parameters: words (the table that embeds and scores words), decoder."""

  config: GptConfig

  def setup(self) -> None:
    self.words = Words(self.config.text)
    self.decoder = Decoder(self.config.text)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Text tokens, each of which has read the earlier ones. `pooled` is the end token, which has read all."""
    c, ids = self.config.text, batch["text"]
    tokens, _ = self.decoder(self.words(ids), causal=True, rng=rng)
    pooled = take_token(tokens, eos_position(ids, eos_id=c.eos_id, pad_id=c.pad_id))[:, 0]
    return {"text": Encoded(tokens, c.mask(ids), pooled)}

  def decode(
    self,
    ids: Int[Array, "batch length"],
    context: None = None,
    *,
    rng: Rngs = None,
    cache: Cache | None = None,
    text: Encoded | None = None,
  ) -> Any:
    """Float32 logits [batch, length, vocab] of the word that follows each of `ids`.

    Padding comes after the words. Real words do not read it, so there is no mask.

    Args:
      ids: token ids. With a cache, the ids that follow the cached ones.
      context: must be None; a language model has no context.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      cache: from `empty_cache` or from the previous call; None: no cache.
      text: ignored; the decoder embeds the words itself.
    Returns: logits. With a cache, (logits, updated cache).
    Raises:
      ConfigError: there is a context.
    """
    del text  # the decoder embeds the words itself
    if context is not None:
      raise ConfigError("a GPT reads no other text and no image: use Caption(image=False), or the model seq2_seq")
    x = self.words(ids, None if cache is None else cache.length)
    tokens, cache = self.decoder(x, causal=True, rng=rng, cache=cache)
    logits = self.words.logits(tokens)
    return logits if cache is None else (logits, cache)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> Cache:
    """Empty cache for `length` words of each of `batch_size` texts."""
    return self.config.text.cache(batch_size, length)

  def __call__(self, batch: Batch) -> Float[Array, "batch length vocab"]:
    """Runs every part of the model once, for `init`."""
    return self.decode(batch["text"])
