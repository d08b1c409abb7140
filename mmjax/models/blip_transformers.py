"""BLIP in the parts in which transformers publishes it: one that compares and matches, and one that writes."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.models.comparing import Comparing
from mmjax.models.config import ModelConfig
from mmjax.nn.cache import Cache
from mmjax.nn.decoder import Decoder
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.word_head import WordHead
from mmjax.nn.words import Words, WordsConfig
from mmjax.types import Batch, Encoded

_IMAGE = ViTConfig(image_size=384, pool="cls", class_position=True, norm_epsilon=1e-5)
_TEXT = WordsConfig(norm="post", input_norm=True, norm_epsilon=1e-12, max_length=512, eos_id=102)


@dataclasses.dataclass(frozen=True)
class BlipRetrievalConfig(ModelConfig):
  """A vision transformer, a text stack (BERT's, with cross-attention), and their common space."""

  image: ViTConfig = _IMAGE
  """The image tower."""
  text: WordsConfig = _TEXT
  """The text stack."""
  embed_dim: int = 256
  """Dimension of the common space."""

  def build(self) -> nn.Module:
    return BlipRetrieval(self)


class BlipRetrieval(Comparing):
  """transformers' BlipForImageTextRetrieval: a text alone, or grounded in the image; no mode has a token of its own.

  Parameters: image, words, text, match_projection, image_projection, text_projection. Similarities have no scale.
  """

  config: BlipRetrievalConfig

  def setup(self) -> None:
    c = self.config
    self.image = ViT(c.image)
    self.words = Words(c.text)
    self.text = Decoder(c.text)
    self.match_projection = Dense(2, nn.initializers.normal(c.text.width**-0.5))
    self.image_projection = Dense(c.embed_dim, nn.initializers.normal(c.image.pooled_width**-0.5))
    self.text_projection = Dense(c.embed_dim, nn.initializers.normal(c.text.width**-0.5))

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Pictures and texts of the batch, whichever it has, each on its own; `tokens` of a text are its embedded words."""
    encoded = {"image": self.image(batch["image"], rng=fold_in(rng, 0))} if "image" in batch else {}
    if "text" in batch:
      words, mask = self.words(batch["text"]), self.config.text.mask(batch["text"])
      tokens, _ = self.text(words, mask, causal=False, rng=fold_in(rng, 1))
      encoded["text"] = Encoded(words, mask, tokens[:, 0])
    return encoded

  def fuse(self, image: Encoded, text: Encoded, *, rng: Rngs = None) -> dict[str, Encoded]:
    """{"text": what each word says after it has seen the picture}; pooled is the first token's."""
    tokens, _ = self.text(text.tokens, text.mask, image, causal=False, rng=fold_in(rng, 2))
    return {"text": Encoded(tokens, text.mask, tokens[:, 0])}

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """From the joint vector: different, belong together; float32."""
    return self.match_projection(pooled.astype(jnp.float32))

  def logit_scale(self) -> Float[Array, ""]:
    """What similarities are multiplied by: one."""
    return jnp.ones((), jnp.float32)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """What `init` runs: everything once."""
    encoded = self.encode(batch)
    fused = self.fuse(encoded["image"], encoded["text"])
    return self.project(encoded) | {"match": self.match_logits(fused["text"].pooled)}


@dataclasses.dataclass(frozen=True)
class BlipCaptionerConfig(ModelConfig):
  """A vision transformer, and a decoder (BERT's layers, causal, with cross-attention) that writes what it sees."""

  image: ViTConfig = _IMAGE
  """The image tower."""
  text: WordsConfig = _TEXT
  """The decoder."""
  begin_id: int = 30_522
  """Token id that a caption begins with, and so a prompt for `generate` (training: data.tokenizer.bos_token)."""

  def build(self) -> nn.Module:
    return BlipCaptioner(self)


class BlipCaptioner(nn.Module):
  """transformers' BlipForConditionalGeneration. Parameters: image, words, text, word_head."""

  config: BlipCaptionerConfig

  def setup(self) -> None:
    c = self.config
    self.image = ViT(c.image)
    self.words = Words(c.text)
    self.text = Decoder(c.text)
    self.word_head = WordHead(c.text.norm_epsilon, c.text.dtype, c.text.activation)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """The pictures of the batch; the decoder reads their tokens, the class token among them."""
    return {"image": self.image(batch["image"], rng=fold_in(rng, 0))}

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

    With a cache, `ids` continue what it holds, `image` is None but in the first call, and the result is (logits, the
    cache that knows them too).
    """
    del text  # the decoder embeds the words itself
    words = self.words(ids, None if cache is None else cache.length)
    tokens, cache = self.text(words, context=image, causal=True, rng=fold_in(rng, 1), cache=cache)
    logits = self.word_head(tokens, self.words.table)
    return logits if cache is None else (logits, cache)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> Cache:
    """Room for `length` words of `batch_size` texts."""
    return self.config.text.cache(batch_size, length)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """What `init` runs: everything once."""
    return {"words": self.decode(batch["text"], self.encode(batch)["image"])}
