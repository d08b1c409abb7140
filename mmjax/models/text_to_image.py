"""Transformer over text and image codes. It draws codes one by one (DALL-E) or in parallel (MaskGIT)."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.models.config import ModelConfig
from mmjax.models.image_codes import ImageCodes, ImageCodesConfig
from mmjax.nn.cache import Cache, empty_cache
from mmjax.nn.decoder import Decoder
from mmjax.nn.stochastic import Rngs
from mmjax.nn.words import WordsConfig, refuse_word_options
from mmjax.types import Batch

Pattern = Literal["full", "row", "column", "convolution"]


@dataclasses.dataclass(frozen=True)
class TextToImageConfig(ModelConfig):
  """Configuration of a text-to-image transformer. Raises ValueError if the fields are inconsistent.

  The image tokenizer is trained before, by a run of its own. Its parameters become part of this model, which never
  trains them.
  """

  text: WordsConfig = WordsConfig()
  """The transformer and the vocabulary of its texts."""
  image: ImageCodesConfig = ImageCodesConfig()
  """Image tokenizer, as in its run."""
  image_from: str = ""
  """Workdir of the run of the image tokenizer, which is read before the first step."""
  decoding: Literal["autoregressive", "masked"] = "autoregressive"
  """autoregressive: each code is predicted from the text and the codes before it (Ramesh et al. 2021, DALL-E). masked:
  masked codes are predicted from the text and the other codes (Chang et al. 2022, MaskGIT)."""
  patterns: tuple[Pattern, ...] = ("full",)
  """Earlier codes that a code attends to, layer by layer and from the first again: all, those of its row, those of its
  column, or those near it. All attend to the whole text. DALL-E: row column row row. Only with autoregressive."""
  last_pattern: Pattern | None = None
  """Pattern of the last layer (DALL-E: convolution). None: that of `patterns`."""
  kernel: int = 3
  """Side of the square of codes in the pattern convolution; odd (DALL-E: 11)."""

  def __post_init__(self) -> None:
    if self.text.positions != "learned" or not self.text.tied or self.text.scale_embedding:
      raise ValueError('text must have positions="learned", tied=True and scale_embedding=False')
    refuse_word_options(self.text, "a text-to-image transformer")
    if not self.patterns:
      raise ValueError("patterns is empty: name at least one")
    if self.decoding == "masked" and {*self.patterns, self.last_pattern} - {"full", None}:
      raise ValueError("patterns are for autoregressive decoding: masked decoding reads all codes")
    if self.kernel < 1 or self.kernel % 2 == 0:
      raise ValueError(f"kernel={self.kernel} must be odd and positive")

  @property
  def frozen(self) -> tuple[str, ...]:
    return ("^image/",)

  @property
  def layer_patterns(self) -> tuple[Pattern, ...]:
    """Pattern of each layer."""
    depth = self.text.depth
    cycle = [self.patterns[layer % len(self.patterns)] for layer in range(depth)]
    return (*cycle[:-1], self.last_pattern or cycle[-1])

  def build(self) -> nn.Module:
    return TextToImage(self)


def readable_pairs(
  words: int, grid: int, patterns: tuple[Pattern, ...], *, kernel: int
) -> Bool[np.ndarray, "depth length length"]:
  """For each layer, True for a token (row) and one that it may read (column): `words` of text, then grid x grid codes.

  A text token reads the text up to itself. A code reads the whole text, itself, and earlier codes by the pattern of the
  layer (Ramesh et al. 2021, figure 11).

  Args:
    words: number of text tokens.
    grid: codes along one side of the image.
    patterns: pattern of each layer.
    kernel: side of the square of the pattern convolution.
  """
  places = np.arange(words + grid**2)
  code = places >= words
  row, column = np.divmod(places - words, grid)
  down, right = row[:, None] - row[None], np.abs(column[:, None] - column[None])
  near = {
    "full": np.ones_like(down, bool),
    "row": down == 0,
    "column": right == 0,
    "convolution": (down <= kernel // 2) & (right <= kernel // 2),
  }
  causal = places[:, None] >= places[None]
  both = code[:, None] & code[None]
  return np.stack([causal & (~both | near[pattern]) for pattern in patterns])


class TextToImage(nn.Module):
  """Model of a TextToImageConfig. Parameters: image (the tokenizer), words, code_tokens, decoder.

  A sequence is a text, padded to its full length, and the codes of an image row by row. Padding is read, and each
  place has a padding vector of its own (Ramesh et al. 2021, section 2.2). A text of padding alone stands for no text.
  """

  config: TextToImageConfig

  def setup(self) -> None:
    c = self.config
    self.image = ImageCodes(c.image)
    self.words = TextTokens(c.text)
    self.code_tokens = CodeTokens(c.image.num_codes, c.image.image.grid, c.text.width, c.text.dtype)
    self.decoder = Decoder(c.text)

  def image_codes(self, images: Float[Array, "batch height width 3"]) -> Int[Array, "batch positions"]:
    """Encode normalised images. No gradient goes to the tokenizer."""
    return jax.lax.stop_gradient(self.image.codes(images))

  def pixels(self, codes: Int[Array, "batch positions"]) -> Float[Array, "batch height width 3"]:
    """Decode codes to normalised images."""
    return self.image.pixels(codes)

  def draw_logits(
    self, text: Int[Array, "batch length"], codes: Int[Array, "batch positions"], *, rng: Rngs = None
  ) -> tuple[Float[Array, "batch length vocab"], Float[Array, "batch positions codes"]]:
    """Compute the logits of the words and of the codes.

    Args:
      text: token ids. With autoregressive decoding, position t predicts text[:, t + 1], and the last one is not used.
      codes: codes of the image. With autoregressive decoding, each code is predicted from those before it. With masked
        decoding, codes of num_codes are masked, and each code is predicted from all.
      rng: one key per example for dropout and stochastic depth. None: evaluation.
    Returns: float32 logits of the words and of the codes.
    """
    c, words = self.config, text.shape[1]
    masked = c.decoding == "masked"
    read = codes if masked else codes[:, :-1]
    x = jnp.concatenate([self.words(text), self.code_tokens(read)], axis=1)
    tokens, _ = self.decoder(x, causal=not masked, rng=rng, pairs=None if masked else self._pairs(words))
    said = tokens[:, words:] if masked else tokens[:, words - 1 :]
    return self.words.logits(tokens[:, :words]), self.code_tokens.logits(said)

  def begin(self, text: Int[Array, "batch length"]) -> tuple[Float[Array, "batch codes"], Cache]:
    """Read a text. Returns (logits of the first code, cache for all codes)."""
    cache = empty_cache(self.config.text, len(text), text.shape[1] + self.config.image.positions)
    return self._step(self.words(text), cache, text.shape[1])

  def extend(
    self, code: Int[Array, "batch"], place: Int[Array, ""], cache: Cache
  ) -> tuple[Float[Array, "batch codes"], Cache]:
    """Read the code at a place of the image. Returns (logits of the next code, cache)."""
    words = cache.layers[0].own.key.shape[2] - self.config.image.positions
    return self._step(self.code_tokens(code[:, None], place), cache, words)

  @nn.nowrap
  def _step(self, x: Array, cache: Cache, words: int) -> tuple[Array, Any]:
    tokens, extended = self.decoder(x, causal=True, cache=cache, pairs=self._pairs(words))
    return self.code_tokens.logits(tokens[:, -1:])[:, 0], extended

  @nn.nowrap
  def _pairs(self, words: int) -> Bool[Array, "depth length length"] | None:
    c = self.config
    if set(c.layer_patterns) == {"full"}:
      return None
    return jnp.asarray(readable_pairs(words, c.image.image.grid, c.layer_patterns, kernel=c.kernel))

  def __call__(self, batch: Batch) -> Any:
    """Runs every part of the model once, for `init`."""
    found = self.image(batch)
    return found, self.draw_logits(batch["text"], self.image_codes(batch["image"]))


class TextTokens(nn.Module):
  """Embeddings of words, whose table also scores words. Parameters: token_embedding, padding_embedding,
  position_embedding."""

  config: WordsConfig

  def setup(self) -> None:
    c, normal = self.config, nn.initializers.normal
    self.table = self.param("token_embedding", normal(0.02), (c.vocab_size, c.width), jnp.float32)
    self.padding = self.param("padding_embedding", normal(0.02), (c.max_length, c.width), jnp.float32)
    self.places = self.param("position_embedding", normal(0.01), (c.max_length, c.width), jnp.float32)

  def __call__(self, ids: Int[Array, "batch length"]) -> Float[Array, "batch length width"]:
    length = ids.shape[1]
    if length > self.config.max_length:
      raise ValueError(f"text has {length} tokens, more than max_length={self.config.max_length}")
    real = (ids != self.config.pad_id)[:, :, None]
    return jnp.where(real, jnp.take(self.table, ids, axis=0), self.padding[None, :length]) + self.places[None, :length]

  def logits(self, tokens: Float[Array, "batch length width"]) -> Float[Array, "batch length vocab"]:
    return _scores(tokens, self.table, self.config.dtype)


class CodeTokens(nn.Module):
  """Embeddings of image codes by code, row and column. Parameters: code_embedding (the last one stands for a masked
  code), row_embedding, column_embedding.

  Attributes:
    codes: number of codes.
    grid: codes along one side of the image.
    width: width of the embeddings.
    dtype: compute dtype of the scores.
  """

  codes: int
  grid: int
  width: int
  dtype: str = "float32"

  def setup(self) -> None:
    normal = nn.initializers.normal
    self.table = self.param("code_embedding", normal(0.02), (self.codes + 1, self.width), jnp.float32)
    self.rows = self.param("row_embedding", normal(0.01), (self.grid, self.width), jnp.float32)
    self.columns = self.param("column_embedding", normal(0.01), (self.grid, self.width), jnp.float32)

  def __call__(
    self, codes: Int[Array, "batch length"], first: Int[Array, ""] | int = 0
  ) -> Float[Array, "batch length width"]:
    """Embed codes. `first` is the place of the first one in the image."""
    places = first + jnp.arange(codes.shape[1], dtype=jnp.int32)
    where = jnp.take(self.rows, places // self.grid, axis=0) + jnp.take(self.columns, places % self.grid, axis=0)
    return jnp.take(self.table, codes, axis=0) + where[None]

  def logits(self, tokens: Float[Array, "batch length width"]) -> Float[Array, "batch length codes"]:
    """Scores of the codes in float32. A masked code has none."""
    return _scores(tokens, self.table[: self.codes], self.dtype)


def _scores(tokens: Array, table: Array, dtype: str) -> Array:
  # Two-dimensional operands: XLA's CPU backend is up to three times slower with three (see nn/dense.py).
  flat = tokens.reshape(-1, tokens.shape[-1]).astype(dtype)
  scores = jnp.einsum("nd,vd->nv", flat, table.astype(dtype), preferred_element_type=jnp.float32)
  return scores.reshape(*tokens.shape[:-1], -1)
