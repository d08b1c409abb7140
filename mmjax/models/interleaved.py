"""Parts of models that read images among words with a frozen image tower and a frozen language model."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.encoders.config import TowerConfig
from mmjax.encoders.video import frame_mask
from mmjax.encoders.vit import ViTConfig
from mmjax.models.config import ModelConfig
from mmjax.models.gpt import Gpt, GptConfig
from mmjax.nn.cache import Cache
from mmjax.nn.decoder import Before
from mmjax.nn.stochastic import Rngs
from mmjax.nn.words import WordsConfig
from mmjax.types import Encoded

IMAGES = "text_images"
"""Name of the array with the images of a text. It is that of a column Interleaved with the name "text"."""


@dataclasses.dataclass(frozen=True)
class InterleavedWordsConfig(WordsConfig):
  """A language model and its vocabulary, which begins with that of the frozen model and ends with new tokens.

  There may be other blocks between its blocks, so `scan` has no effect.
  """

  image_id: int = -1
  """Token id of an image. It is set from the tokenizer (data.tokenizer.image_token)."""
  new_tokens: int = 2
  """Number of tokens at the end of the vocabulary that the frozen language model does not have. Their embeddings are
  trained: the image token and the chunk token (data.tokenizer.chunk_token)."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if not 1 <= self.new_tokens < self.vocab_size:
      raise ValueError(f"new_tokens={self.new_tokens} must lie in [1, vocab_size={self.vocab_size})")

  @property
  def language(self) -> WordsConfig:
    """Configuration of the frozen language model."""
    fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(WordsConfig)}
    return WordsConfig(**fields | {"vocab_size": self.vocab_size - self.new_tokens, "scan": False})


@dataclasses.dataclass(frozen=True)
class InterleavedConfig(ModelConfig):
  """Base of the configurations of models that read texts with images."""

  image: TowerConfig = ViTConfig()
  """Image tower. It is frozen: its parameters are read from image_from."""
  image_from: str = ""
  """Workdir of a run with the same image tower, or a checkpoint that mmjax.interop.load reads."""
  text: InterleavedWordsConfig = InterleavedWordsConfig()
  """Language model. It is frozen: its parameters are read from language_from."""
  language_from: str = ""
  """Workdir of a run of a language model (GptConfig), or a checkpoint that mmjax.interop.load reads."""
  images: int = 4
  """Images of a row (Interleaved.images)."""
  frames: int = 1
  """Frames of an image that is a video (Interleaved.frames)."""

  def __post_init__(self) -> None:
    for name in ("images", "frames"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

  @property
  def frozen(self) -> tuple[str, ...]:
    return ("^image/", "^language/")

  @property
  def places(self) -> int:
    """Image tokens in a text for each image."""
    return 1

  def example(self, batch_size: int) -> dict[str, Array]:
    """Make a batch of zeros with the arrays that the model reads, for `init`."""
    pixels = self.image.example(1).shape[1:]
    shape = (batch_size, self.images, self.frames, *pixels)
    text = jnp.zeros((batch_size, self.text.max_length), jnp.int32)
    return {IMAGES: jnp.zeros(shape, jnp.float32), "text": text}


class Language(Gpt):
  """The frozen language model. Its parameters have the paths that they have in a Gpt."""

  def embed(self, ids: Int[Array, "batch length"]) -> Float[Array, "batch length width"]:
    """Token embeddings without positions. Ids of new tokens get some embedding."""
    return jnp.take(self.words.table, jnp.minimum(ids, self.config.text.vocab_size - 1), axis=0)

  def through(
    self,
    x: Float[Array, "batch length width"],
    *,
    cache: Cache | None = None,
    before: Before | None = None,
  ) -> tuple[Float[Array, "batch length width"], Cache | None]:
    """Adds positions to token embeddings, and applies the blocks. `cache` and `before` are as in `Decoder`."""
    x = self.words.placed(x, None if cache is None else cache.length)
    return self.decoder(x, causal=True, cache=cache, before=before)

  def scores(self, tokens: Float[Array, "batch length width"]) -> Float[Array, "batch length vocab"]:
    """Float32 logits of the words that the language model has."""
    return self.words.logits(tokens)


class Interleaving(nn.Module):
  """Base of models that read texts with images.

  Parameters: image and language, which are frozen; token_embedding, of the new tokens.
  """

  config: InterleavedConfig

  def setup(self) -> None:
    c = self.config
    self.image = c.image.build()
    self.language = Language(GptConfig(c.text.language))
    init = nn.initializers.normal(0.02)
    self.new_table = self.param("token_embedding", init, (c.text.new_tokens, c.text.width), jnp.float32)

  def encode(self, batch: Mapping[str, Array], *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the images of texts. `tokens` are those of all images of a row, in their order."""
    del rng  # the tower is frozen, and what follows it has no dropout
    if IMAGES not in batch:
      return {}
    tokens = self.connected(*self.features(batch[IMAGES]))
    tokens = rearrange(tokens, "(b n) k d -> b (n k) d", b=batch[IMAGES].shape[0])
    return {IMAGES: Encoded(tokens, jnp.ones(tokens.shape[:2], bool), tokens[:, 0])}

  @nn.nowrap
  def connected(
    self,
    features: Float[Array, "batch*images frames tokens image_width"],
    mask: Bool[Array, "batch*images frames tokens"],
  ) -> Float[Array, "batch*images k width"]:
    """Tokens of each image for the language model. `features` and `mask` are those of the method `features`."""
    raise NotImplementedError

  @nn.nowrap
  def embed(self, ids: Int[Array, "batch length"]) -> Float[Array, "batch length width"]:
    """Token embeddings, of the language model or new, without positions."""
    first = self.config.text.language.vocab_size
    new = jnp.take(self.new_table, jnp.maximum(ids - first, 0), axis=0)
    return jnp.where((ids < first)[:, :, None], self.language.embed(ids), new)

  @nn.nowrap
  def scores(self, tokens: Float[Array, "batch length width"]) -> Float[Array, "batch length vocab"]:
    """Float32 logits of all words. An image is never written: its logit is the lowest number."""
    text = self.config.text
    flat, table = tokens.reshape(-1, tokens.shape[-1]).astype(text.dtype), self.new_table.astype(text.dtype)
    new = jnp.einsum("nd,vd->nv", flat, table, preferred_element_type=jnp.float32)
    number = text.language.vocab_size + jnp.arange(text.new_tokens, dtype=jnp.int32)
    new = jnp.where(number[None] == text.image_id, jnp.finfo(jnp.float32).min, new)
    return jnp.concatenate([self.language.scores(tokens), new.reshape(*tokens.shape[:-1], -1)], axis=-1)

  @nn.nowrap
  def features(
    self, images: Float[Array, "batch images frames height width 3"]
  ) -> tuple[Float[Array, "batch*images frames tokens image_width"], Bool[Array, "batch*images frames tokens"]]:
    """Tokens of the frozen image tower for each frame, and their mask. No gradient goes to the tower."""
    frames = images.shape[2]
    clips = rearrange(images, "b n f h w c -> (b n) f h w c")
    real = frame_mask(clips)
    shown = jnp.where(real[:, :, None, None, None], clips, 0.0)
    encoded = self.image(rearrange(shown, "m f h w c -> (m f) h w c"), rng=None)
    tokens = jax.lax.stop_gradient(rearrange(encoded.tokens, "(m f) p d -> m f p d", f=frames))
    return tokens, rearrange(encoded.mask, "(m f) p -> m f p", f=frames) & real[:, :, None]

  @nn.nowrap
  def is_image(self, ids: Int[Array, "batch length"]) -> Bool[Array, "batch length"]:
    """True for image tokens."""
    return ids == self.config.text.image_id

  def __call__(self, batch: Mapping[str, Array]) -> Any:
    """Runs every part of the model once, for `init`."""
    context = self.encode({IMAGES: batch[IMAGES]})[IMAGES]
    return self.decode(batch["text"], context)
