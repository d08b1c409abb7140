"""GPT: a causal transformer that predicts the next word, and nothing else (Radford et al. 2018, 2019)."""

import dataclasses
from typing import Any

import flax.linen as nn
from jax import Array
from jaxtyping import Float, Int

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
  """A language model."""

  text: WordsConfig = WordsConfig()
  """The transformer and its vocabulary."""

  def build(self) -> nn.Module:
    return Gpt(self)


class Gpt(nn.Module):
  """Parameters: words (the table that embeds and scores), decoder."""

  config: GptConfig

  def setup(self) -> None:
    self.words = Words(self.config.text)
    self.decoder = Decoder(self.config.text)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """The text's tokens, each of which knows what came before; pooled: its end token, which knows all."""
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

    With a cache, `ids` continue what it holds, and the result is (logits, the cache that knows them too).
    Padding comes after the words: nothing real reads it, so there is no mask.
    """
    del text  # the decoder embeds the words itself
    x = self.words(ids, None if cache is None else cache.length)
    tokens, cache = self.decoder(x, causal=True, rng=rng, cache=cache)
    logits = self.words.logits(tokens)
    return logits if cache is None else (logits, cache)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> Cache:
    """Room for `length` words of `batch_size` texts."""
    return self.config.text.cache(batch_size, length)

  def __call__(self, batch: Batch) -> Float[Array, "batch length vocab"]:
    """What `init` runs: everything once."""
    return self.decode(batch["text"])
