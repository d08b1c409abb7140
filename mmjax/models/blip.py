"""BLIP: one text transformer that embeds texts, matches them with images, and generates them (Li et al. 2022)."""

import dataclasses
from collections.abc import Mapping
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
  """An image encoder, a text transformer with three modes, and a common embedding space."""

  image: ViTConfig = ViTConfig(pool="cls")
  """The image encoder."""
  text: WordsConfig = WordsConfig()
  """The text transformer. Texts begin with a begin token (data.tokenizer.bos_token), which depends on the mode."""

  def build(self) -> nn.Module:
    return Blip(self)


class Blip(Comparing):
  """BLIP with its three modes: unimodal encoder, image-grounded encoder (cross-attention), and decoder.

  The modes share all parameters except self-attention's, which is separate for the causal mode (section 3.1). An
  embedding of the mode is added to the first token of a text, which makes it [CLS], [Encode] or [Decode].

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
    """Encodes the images and texts of the batch separately. The batch may contain only one of the two.

    For a text, `pooled` is the output of the unimodal mode. `tokens` are the embedded words, because the grounded mode
    (`fuse`) reads these.
    """
    encoded = {"image": self.image(batch["image"], rng=fold_in(rng, 0))} if "image" in batch else {}
    if "text" in batch:
      encoded["text"] = self.encode_words(batch["text"], rng=rng)
    return encoded

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded:
    """Encodes texts, as `encode` does."""
    words, mask = self.words(ids), self.config.text.mask(ids)
    tokens, _ = self.text(self._begin(words, _UNIMODAL), mask, causal=False, rng=fold_in(rng, 1))
    return Encoded(words, mask, tokens[:, 0])

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """Grounded mode: {"text": text tokens that have read the image}. `pooled` is the first token."""
    image, text = encoded["image"], encoded["text"]
    x = self._begin(text.tokens, _GROUNDED)
    tokens, _ = self.text(x, text.mask, image, causal=False, rng=fold_in(rng, 2))
    return {"text": Encoded(tokens, text.mask, tokens[:, 0])}

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """Logits of image-text matching in float32. Column 1: image and text belong together."""
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
    """Decoder mode: float32 logits [batch, length, vocab] of the word that follows each of `ids`.

    Args:
      ids: token ids. With a cache, the ids that follow the cached ones.
      image: encoded image. With a cache, None except in the first call.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      cache: from `empty_cache` or from the previous call; None: no cache.
      text: ignored; it was encoded in another mode.
    Returns: logits. With a cache, (logits, updated cache).
    Raises:
      ValueError: the vectors in `image` do not have the width of the image encoder.
    """
    del text  # made in another mode
    if image is not None and image.tokens.shape[-1] != self.config.image.width:
      raise ValueError(
        f"the decoder reads vectors of image.width={self.config.image.width}, not of {image.tokens.shape[-1]}: to read "
        "outputs of the grounded mode (for answers), set text.width to image.width"
      )
    start = None if cache is None else cache.length
    x = self._begin(self.words(ids, start), _DECODER, start)
    tokens, cache = self.text(x, context=image, causal=True, rng=fold_in(rng, 3), cache=cache)
    logits = self.words.logits(tokens)
    return logits if cache is None else (logits, cache)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> Cache:
    """Empty cache for `length` words of each of `batch_size` texts."""
    return self.config.text.cache(batch_size, length)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model once, for `init`."""
    encoded = self.encode(batch)
    fused = self.fuse(encoded)
    logits = self.decode(batch["text"], encoded["image"])
    return self.project(encoded) | {"match": self.match_logits(fused["text"].pooled), "words": logits}

  def _begin(
    self, words: Float[Array, "batch length width"], mode: int, start: Int[Array, "batch"] | None = None
  ) -> Float[Array, "batch length width"]:
    """Adds the mode embedding to the first word of each text. `start` is the position of the first given word."""
    if start is None:
      return words.at[:, 0].add(self.modes[mode])
    first = start[:, None] + jnp.arange(words.shape[1], dtype=jnp.int32)[None] == 0
    return words + jnp.where(first[:, :, None], self.modes[mode][None, None], 0.0)
