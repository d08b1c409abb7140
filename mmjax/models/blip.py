"""BLIP: one text stack that embeds texts, matches them with pictures, and writes them (Li et al. 2022)."""

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
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.words import Words, WordsConfig
from mmjax.types import Batch, Encoded

_UNIMODAL, _GROUNDED, _DECODER = range(3)  # rows of mode_embedding


@dataclasses.dataclass(frozen=True)
class BlipConfig(ComparingConfig):
  """A vision transformer, one text stack in three modes, and their common space."""

  image: ViTConfig = ViTConfig(pool="cls")
  """The image tower."""
  text: WordsConfig = WordsConfig()
  """The text stack; a text begins with a begin token (data.tokenizer.bos_token), whose meaning depends on the mode."""

  def build(self) -> nn.Module:
    return Blip(self)


class Blip(Comparing):
  """Unimodal, grounded in the image (cross-attention), or decoder; all is shared but self-attention (section 3.1).

  The first token of a text stands for the mode: an embedding of the mode is added, which makes it [CLS], [Encode] or
  [Decode].

  Parameters: image, words, mode_embedding, text, match_projection, image_projection, text_projection, logit_scale.
  """

  config: BlipConfig

  def setup(self) -> None:
    c = self.config
    self.image = ViT(c.image)
    self.words = Words(c.text)
    self.modes = self.param("mode_embedding", nn.initializers.normal(0.02), (3, c.text.width), jnp.float32)
    self.text = Decoder(c.text, separate_causal=True)
    self.match_projection = Dense(2, nn.initializers.normal(c.text.width**-0.5))
    self.setup_comparing(c.image.pooled_width, c.text.width)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Pictures and texts of the batch, whichever it has, each on its own.

    Of a text, `pooled` is what the unimodal mode says; `tokens` are the embedded words, since it is them that the
    grounded mode (`fuse`) reads.
    """
    encoded = {"image": self.image(batch["image"], rng=fold_in(rng, 0))} if "image" in batch else {}
    if "text" in batch:
      encoded["text"] = self.encode_words(batch["text"], rng=rng)
    return encoded

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded:
    """The text alone, as in `encode`."""
    words, mask = self.words(ids), self.config.text.mask(ids)
    tokens, _ = self.text(self._begin(words, _UNIMODAL), mask, causal=False, rng=fold_in(rng, 1))
    return Encoded(words, mask, tokens[:, 0])

  def fuse(self, image: Encoded, text: Encoded, *, rng: Rngs = None) -> dict[str, Encoded]:
    """The grounded mode: {"text": what each word says after it has seen the picture}; pooled is the first token's."""
    x = self._begin(text.tokens, _GROUNDED)
    tokens, _ = self.text(x, text.mask, image, causal=False, rng=fold_in(rng, 2))
    return {"text": Encoded(tokens, text.mask, tokens[:, 0])}

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """From the joint vector: different, belong together; float32."""
    return self.match_projection(pooled.astype(jnp.float32))

  def decode(
    self,
    ids: Int[Array, "batch length"],
    image: Encoded | None,
    *,
    rng: Rngs = None,
    cache: Cache | None = None,
    text: Encoded | None = None,
  ) -> Any:
    """The decoder mode: float32 logits [batch, length, vocab] of the word that follows each of `ids`.

    With a cache, `ids` continue what it holds, `image` is None but in the first call, and the result is (logits, the
    cache that knows them too).
    """
    del text  # made in another mode
    if image is not None and image.tokens.shape[-1] != self.config.image.width:
      raise ValueError(
        f"the decoder reads vectors of image.width={self.config.image.width}, not of {image.tokens.shape[-1]}: to read "
        "what the grounded mode says (answers), set text.width to image.width"
      )
    start = None if cache is None else cache.length
    x = self._begin(self.words(ids, start), _DECODER, start)
    tokens, cache = self.text(x, context=image, causal=True, rng=fold_in(rng, 3), cache=cache)
    logits = self.words.logits(tokens)
    return logits if cache is None else (logits, cache)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> Cache:
    """Room for `length` words of `batch_size` texts."""
    return self.config.text.cache(batch_size, length)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """What `init` runs: everything once."""
    encoded = self.encode(batch)
    fused = self.fuse(encoded["image"], encoded["text"])
    logits = self.decode(batch["text"], encoded["image"])
    return self.project(encoded) | {"match": self.match_logits(fused["text"].pooled), "words": logits}

  def _begin(
    self, words: Float[Array, "batch length width"], mode: int, start: Int[Array, "batch"] | None = None
  ) -> Float[Array, "batch length width"]:
    """Embedded words whose first says what is to be done; `start` is the place of the first one given."""
    if start is None:
      return words.at[:, 0].add(self.modes[mode])
    first = start[:, None] + jnp.arange(words.shape[1], dtype=jnp.int32)[None] == 0
    return words + jnp.where(first[:, :, None], self.modes[mode][None, None], 0.0)
