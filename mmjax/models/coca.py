"""CoCa: a captioner whose first half is CLIP's text tower (Yu et al. 2022)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.models.comparing import Comparing, ComparingConfig
from mmjax.nn.cache import Cache
from mmjax.nn.decoder import Decoder
from mmjax.nn.pooling import QueryPool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.words import Words, WordsConfig
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class CocaConfig(ComparingConfig):
  """A vision transformer, a decoder in two halves, and their common space. Raises ValueError for a misfit."""

  image: ViTConfig = ViTConfig(pool="mean")
  """The image tower, whose patch tokens are read."""
  text: WordsConfig = WordsConfig(depth=6)
  """The unimodal half, which sees no picture; texts begin with a begin token (data.tokenizer.bos_token)."""
  multimodal_depth: int = 6
  """Blocks of the second half, which reads the picture."""
  caption_queries: int = 256
  """Learned queries that summarise a picture for the second half; one more is its embedding."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.image.pool != "mean":
      raise ValueError(f'image.pool="{self.image.pool}" would be left unused: set "mean", CoCa has poolers of its own')
    if self.multimodal_depth < 1 or self.caption_queries < 1:
      raise ValueError(
        f"multimodal_depth={self.multimodal_depth} and caption_queries={self.caption_queries} must be at least 1"
      )

  def build(self) -> nn.Module:
    return Coca(self)


class Coca(Comparing):
  """Parameters: image, pool (the queries), words, class_token, unimodal, multimodal, the projections, logit_scale."""

  config: CocaConfig

  def setup(self) -> None:
    c = self.config
    self.image = ViT(c.image)
    self.pool = QueryPool(c.text, c.caption_queries + 1)
    self.words = Words(c.text)
    self.class_token = self.param("class_token", nn.initializers.normal(0.02), (1, c.text.width), jnp.float32)
    self.unimodal = Decoder(c.text)
    self.multimodal = Decoder(dataclasses.replace(c.text, depth=c.multimodal_depth))
    self.setup_comparing(c.text.width, c.text.width)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Pictures and texts of the batch, whichever it has, each on its own.

    Of a picture, `tokens` are the caption queries and `pooled` is the contrastive one. Of a text, `tokens` are its
    words, which `decode` goes on with, and `pooled` is the class token.
    """
    encoded = {}
    if "image" in batch:
      queries = self.pool(self.image(batch["image"], rng=fold_in(rng, 0)).tokens, None)
      tokens = queries[:, :-1]
      encoded["image"] = Encoded(tokens, jnp.ones(tokens.shape[:2], bool), queries[:, -1])
    if "text" in batch:
      encoded["text"] = self.encode_words(batch["text"], rng=rng)
    return encoded

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded:
    """The unimodal half; the class token comes last, so that it reads every word and no word reads it."""
    words, mask = self.words(ids), self.config.text.mask(ids)
    last = jnp.broadcast_to(self.class_token[None].astype(words.dtype), (ids.shape[0], 1, words.shape[2]))
    readable = jnp.concatenate([mask, jnp.ones_like(mask[:, :1])], axis=1)
    tokens, _ = self.unimodal(jnp.concatenate([words, last], axis=1), readable, causal=True, rng=fold_in(rng, 1))
    return Encoded(tokens[:, :-1], mask, tokens[:, -1])

  def decode(
    self,
    ids: Int[Array, "batch length"],
    image: Encoded | None,
    *,
    rng: Rngs = None,
    cache: dict[str, Cache] | None = None,
    text: Encoded | None = None,
  ) -> Any:
    """Float32 logits [batch, length, vocab] of the word that follows each of `ids`.

    `text`, if `encode` has made it of the same ids, saves the unimodal half. With a cache, `ids` continue what it
    holds, `image` is None but in the first call, and the result is (logits, the cache that knows them too).
    """
    if cache is not None:
      words = self.words(ids, cache["unimodal"].length)
      tokens, unimodal = self.unimodal(words, causal=True, cache=cache["unimodal"])
      tokens, multimodal = self.multimodal(tokens, context=image, causal=True, cache=cache["multimodal"])
      return self.caption_logits(tokens), {"unimodal": unimodal, "multimodal": multimodal}
    text = self.encode_words(ids, rng=rng) if text is None else text
    tokens, _ = self.multimodal(text.tokens, context=image, causal=True, rng=fold_in(rng, 2))
    return self.caption_logits(tokens)

  def caption_logits(self, tokens: Float[Array, "batch length width"]) -> Float[Array, "batch length vocab"]:
    """Scores of the next word from what the second half says, by the table that embeds them."""
    return self.words.logits(tokens)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> dict[str, Cache]:
    """Room for `length` words of `batch_size` texts, in both halves."""
    c = self.config
    first = c.text.cache(batch_size, length)
    return {"unimodal": first, "multimodal": c.text.cache(batch_size, length, depth=c.multimodal_depth)}

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """What `init` runs: everything once."""
    encoded = self.encode(batch)
    logits = self.decode(batch["text"], encoded["image"], text=encoded["text"])
    return self.project(encoded) | {"words": logits}
