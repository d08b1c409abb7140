"""CoCa: a captioner whose first part is CLIP's text encoder (Yu et al. 2022)."""

import dataclasses
from typing import Any, Literal

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
  """An image encoder, a decoder in two parts, and a common embedding space.

  Raises ValueError if the fields are inconsistent.
  """

  image: ViTConfig = ViTConfig(pool="mean")
  """The image encoder, whose patch tokens are read."""
  text: WordsConfig = WordsConfig(depth=6)
  """The unimodal decoder, which does not read the image. Texts begin with a begin token (data.tokenizer.bos_token)."""
  multimodal_depth: int = 6
  """Blocks of the multimodal decoder, which reads the image."""
  caption_queries: int = 256
  """Learned queries whose outputs the multimodal decoder reads. One further query gives the image embedding."""
  poolers: Literal["joint", "parallel", "cascade"] = "joint"
  """Attention of the queries. "joint": one pooler for all queries. "parallel": a captioning pooler and a contrastive
  pooler, which both read the image tokens (the paper's figure 2). "cascade": the contrastive pooler reads the outputs
  of the captioning pooler (section 4.4 and table 8f; the form of the paper's models)."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.image.pool != "mean":
      raise ValueError(f'image.pool="{self.image.pool}" would be left unused: set "mean", CoCa has its own poolers')
    if self.multimodal_depth < 1 or self.caption_queries < 1:
      raise ValueError(
        f"multimodal_depth={self.multimodal_depth} and caption_queries={self.caption_queries} must be at least 1"
      )

  def build(self) -> nn.Module:
    return Coca(self)


class Coca(Comparing):
  """CoCa.

  Parameters: image, pool (the queries), contrastive_pool (unless poolers="joint"), words, class_token, unimodal,
  multimodal, projections, logit_scale.
  """

  config: CocaConfig

  def setup(self) -> None:
    c = self.config
    self.image = ViT(c.image)
    joint = c.poolers == "joint"
    self.pool = QueryPool(c.text, c.caption_queries + 1 if joint else c.caption_queries)
    self.contrastive_pool = None if joint else QueryPool(c.text, 1)
    self.words = Words(c.text)
    self.class_token = self.param("class_token", nn.initializers.normal(0.02), (1, c.text.width), jnp.float32)
    self.unimodal = Decoder(c.text)
    self.multimodal = Decoder(dataclasses.replace(c.text, depth=c.multimodal_depth))
    self.setup_comparing(c.text.width, c.text.width)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the images and texts of the batch separately. The batch may contain only one of the two.

    For an image, `tokens` are the outputs of the caption queries, and `pooled` is that of the contrastive query. For a
    text, `tokens` are its words, which `decode` continues with, and `pooled` is the class token.
    """
    encoded = {}
    if "image" in batch:
      tokens, pooled = self._pooled(self.image(batch["image"], rng=fold_in(rng, 0)).tokens)
      encoded["image"] = Encoded(tokens, jnp.ones(tokens.shape[:2], bool), pooled)
    if "text" in batch:
      encoded["text"] = self.encode_words(batch["text"], rng=rng)
    return encoded

  def _pooled(
    self, patches: Float[Array, "batch patches image_width"]
  ) -> tuple[Float[Array, "batch queries width"], Float[Array, "batch width"]]:
    """Outputs of the caption queries, and of the contrastive query."""
    outputs = self.pool(patches, None)
    if self.contrastive_pool is None:
      return outputs[:, :-1], outputs[:, -1]
    read = outputs if self.config.poolers == "cascade" else patches
    return outputs, self.contrastive_pool(read, None)[:, 0]

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded:
    """Applies the unimodal decoder. The class token comes last, so that it reads every word and no word reads it."""
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

    Args:
      ids: token ids. With a cache, the ids that follow the cached ones.
      image: encoded image. With a cache, None except in the first call.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      cache: from `empty_cache` or from the previous call; None: no cache.
      text: result of `encode` for the same ids, if available. It saves the unimodal decoder. Not used with a cache.
    Returns: logits. With a cache, (logits, updated cache).
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
    """Scores of the next word from outputs of the multimodal decoder: products with the word embeddings."""
    return self.words.logits(tokens)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> dict[str, Cache]:
    """Empty caches of both decoders, for `length` words of each of `batch_size` texts."""
    c = self.config
    first = c.text.cache(batch_size, length)
    return {"unimodal": first, "multimodal": c.text.cache(batch_size, length, depth=c.multimodal_depth)}

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model once, for `init`."""
    encoded = self.encode(batch)
    logits = self.decode(batch["text"], encoded["image"], text=encoded["text"])
    return self.project(encoded) | {"words": logits}
