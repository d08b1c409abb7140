"""BLIP in the form of transformers' published models: for retrieval, captions, questions and embeddings."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.bert import bert_config
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.models.comparing import Comparing
from mmjax.models.config import ModelConfig
from mmjax.models.two_tower import TwoTower, TwoTowerConfig
from mmjax.nn.cache import Cache
from mmjax.nn.decoder import Decoder
from mmjax.nn.dense import Dense
from mmjax.nn.norm import layer_norm
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.word_head import WordHead
from mmjax.nn.words import Words, WordsConfig, refuse_word_options
from mmjax.types import Batch, Encoded

_IMAGE = ViTConfig(image_size=384, pool="cls", class_position=True, norm_epsilon=1e-5)
_TEXT = WordsConfig(norm="post", input_norm=True, norm_epsilon=1e-12, max_length=512, eos_id=102)


@dataclasses.dataclass(frozen=True)
class BlipRetrievalConfig(ModelConfig):
  """An image encoder, a text transformer (BERT with cross-attention), and a common embedding space."""

  image: ViTConfig = _IMAGE
  """The image encoder."""
  text: WordsConfig = _TEXT
  """The text transformer."""
  embed_dim: int = 256
  """Dimension of the common embedding space."""

  def build(self) -> nn.Module:
    return BlipRetrieval(self)


class BlipRetrieval(Comparing):
  """transformers' BlipForImageTextRetrieval. It encodes a text alone or grounded in the image, without mode embeddings.

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
    """Encodes the images and texts of the batch separately.

    `tokens` of a text are its embedded words, which `fuse` reads.
    """
    encoded = {"image": self.image(batch["image"], rng=fold_in(rng, 0))} if "image" in batch else {}
    if "text" in batch:
      words, mask = self.words(batch["text"]), self.config.text.mask(batch["text"])
      tokens, _ = self.text(words, mask, causal=False, rng=fold_in(rng, 1))
      encoded["text"] = Encoded(words, mask, tokens[:, 0])
    return encoded

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """Grounded mode: {"text": text tokens that have read the image}. `pooled` is the first token."""
    image, text = encoded["image"], encoded["text"]
    tokens, _ = self.text(text.tokens, text.mask, image, causal=False, rng=fold_in(rng, 2))
    return {"text": Encoded(tokens, text.mask, tokens[:, 0])}

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """Logits of image-text matching in float32. Column 1: image and text belong together."""
    return self.match_projection(pooled.astype(jnp.float32))

  def logit_scale(self) -> Float[Array, ""]:
    """Factor of the similarities: 1."""
    return jnp.ones((), jnp.float32)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model once, for `init`."""
    encoded = self.encode(batch)
    fused = self.fuse(encoded)
    return self.project(encoded) | {"match": self.match_logits(fused["text"].pooled)}


@dataclasses.dataclass(frozen=True)
class BlipCaptionerConfig(ModelConfig):
  """An image encoder, and a decoder for captions (BERT's layers, causal, with cross-attention)."""

  image: ViTConfig = _IMAGE
  """The image encoder."""
  text: WordsConfig = _TEXT
  """The decoder."""
  begin_id: int = 30_522
  """Token id of a caption's begin token, and so of the prompt for `generate` (training: data.tokenizer.bos_token)."""

  def __post_init__(self) -> None:
    refuse_word_options(self.text, "BLIP's decoder")

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
    """Encodes the images of the batch. The decoder reads all tokens, including the class token."""
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

    Args:
      ids: token ids. With a cache, the ids that follow the cached ones.
      image: encoded image. With a cache, None except in the first call.
      rng: one key per example for dropout and stochastic depth; None: evaluation.
      cache: from `empty_cache` or from the previous call; None: no cache.
      text: ignored; the decoder embeds the words itself.
    Returns: logits. With a cache, (logits, updated cache).
    """
    del text  # the decoder embeds the words itself
    words = self.words(ids, None if cache is None else cache.length)
    tokens, cache = self.text(words, context=image, causal=True, rng=fold_in(rng, 1), cache=cache)
    logits = self.word_head(tokens, self.words.scoring)
    return logits if cache is None else (logits, cache)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> Cache:
    """Empty cache for `length` words of each of `batch_size` texts."""
    return self.config.text.cache(batch_size, length)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model once, for `init`."""
    return {"words": self.decode(batch["text"], self.encode(batch)["image"])}


@dataclasses.dataclass(frozen=True)
class BlipQuestionConfig(ModelConfig):
  """An image encoder, an encoder for questions that reads the image, and a decoder that writes answers."""

  image: ViTConfig = _IMAGE
  """The image encoder."""
  text: WordsConfig = _TEXT
  """The encoder for questions, and the decoder for answers. They have the same size and no common parameters."""
  begin_id: int = 30_522
  """Token id of an answer's begin token, and so of the prompt for `generate` (training: data.tokenizer.bos_token)."""

  def __post_init__(self) -> None:
    refuse_word_options(self.text, "BLIP's decoder")

  def build(self) -> nn.Module:
    return BlipQuestion(self)


class BlipQuestion(BlipCaptioner):
  """transformers' BlipForQuestionAnswering.

  Parameters: those of BlipCaptioner, which write the answer, question_words and question (BERT with cross-attention).
  The decoder reads the question that `fuse` gives, and not its padding (as in the paper's training; the `generate` of
  transformers reads it too, so its answers depend on the padding).
  """

  config: BlipQuestionConfig  # type: ignore[assignment]  # it has all fields of a captioner's

  def setup(self) -> None:
    super().setup()
    self.question_words, self.question = Words(self.config.text), Decoder(self.config.text)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the images and embeds the questions of the batch, which may contain only one of the two."""
    encoded = super().encode(batch, rng=rng) if "image" in batch else {}
    if "text" in batch:
      words = self.question_words(batch["text"])
      encoded["text"] = Encoded(words, self.config.text.mask(batch["text"]), words[:, 0])
    return encoded

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """The question that has read the image: {"text": its tokens}. `pooled` is the first token."""
    text = encoded["text"]
    tokens, _ = self.question(text.tokens, text.mask, encoded["image"], causal=False, rng=fold_in(rng, 2))
    return {"text": Encoded(tokens, text.mask, tokens[:, 0])}

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model once, for `init`."""
    return {"words": self.decode(batch["text"], self.fuse(self.encode(batch))["text"])}


@dataclasses.dataclass(frozen=True)
class BlipPairConfig(TwoTowerConfig):
  """BLIP's image encoder beside BERT. Raises ValueError if the image encoder does not end in a norm."""

  image: ViTConfig = _IMAGE
  """The image encoder."""
  text: TextConfig = bert_config(vocab_size=30_524, token_types=0)
  """The text encoder."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.image.norm == "post" or self.image.norm_after_pool or self.image.rms_norm:
      raise ValueError('the last norm of the image encoder is used twice: set norm="pre" and norm_after_pool=False')

  def build(self) -> nn.Module:
    return BlipPair(self)


class BlipPair(TwoTower):
  """transformers' BlipModel. Its class token is normalised twice, both times by the last norm of the image encoder."""

  config: BlipPairConfig

  def embedding(self, name: str, encoded: Encoded) -> Float[Array, "batch dim"]:
    """Project an encoding to the shared space. The embedding is float32 and not unit-norm."""
    if name.startswith("image"):
      image: Any = self.image
      last = image.variables["params"]["transformer"]["norm"]
      pooled = layer_norm(encoded.pooled, last["scale"], last["bias"], self.config.image.norm_epsilon)
      encoded = Encoded(encoded.tokens, encoded.mask, pooled)
    return super().embedding(name, encoded)
