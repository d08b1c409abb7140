"""ViLT: one transformer over words and patches, without separate encoders (Kim et al. 2021)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.bert import bert_config
from mmjax.encoders.text import TextConfig
from mmjax.fusion.joint import EarlyFusion
from mmjax.fusion.tokens import split
from mmjax.models.config import ModelConfig
from mmjax.nn.dense import Dense
from mmjax.nn.embeddings import PatchEmbed
from mmjax.nn.initial import embedding_init
from mmjax.nn.pooling import TanhPool
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import TransformerConfig
from mmjax.nn.word_head import WordHead
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class PatchesConfig:
  """Division of images into patches. Raises ValueError if the patch size does not divide the image size."""

  image_size: int = 384
  """Side of the square input image in pixels."""
  patch_size: int = 32
  """Side of a patch in pixels."""

  def __post_init__(self) -> None:
    if self.image_size % self.patch_size:
      raise ValueError(f"image_size={self.image_size} must be divisible by patch_size={self.patch_size}")

  @property
  def grid(self) -> int:
    """Number of patches along one side."""
    return self.image_size // self.patch_size


@dataclasses.dataclass(frozen=True)
class ViltConfig(ModelConfig):
  """Patches, and the one transformer. Raises ValueError for texts that are read only backwards."""

  image: PatchesConfig = PatchesConfig()
  """Division of images into patches."""
  text: TextConfig = bert_config(norm="pre", input_norm=False, token_types=0, tanh_pool=False, max_length=40)
  """The transformer and its words. Texts begin with a [CLS] token (data.tokenizer.cls_token), which represents the
  pair.
  """

  image_class_token: bool = False
  """Put a class token before the patches, with a position of its own (the paper's v_class, eq. 1)."""

  def __post_init__(self) -> None:
    if self.text.causal:
      raise ValueError("every token of the transformer reads all others: set text.causal=False")

  @property
  def stream(self) -> TransformerConfig:
    """Configuration of the transformer."""
    return TransformerConfig(**{f.name: getattr(self.text, f.name) for f in dataclasses.fields(TransformerConfig)})

  def build(self) -> nn.Module:
    return Vilt(self)


class Vilt(nn.Module):
  """ViLT.

  Parameters: patches (patch embedding), image_class_token (if chosen), image/text position embeddings,
  token_embedding, stream (the transformer, with modality embeddings), tanh_pool, match_projection, word_head.
  """

  config: ViltConfig
  token_order = ("text", "image")

  def setup(self) -> None:
    c, t = self.config, self.config.text
    normal, embedding = nn.initializers.normal, embedding_init(t.init_scheme, 0.02, t.width)
    self.patches = PatchEmbed(t.width, c.image.patch_size, t.dtype)
    self.first = self.param("image_class_token", embedding, (1, t.width), jnp.float32) if c.image_class_token else None
    places = c.image.grid**2 + c.image_class_token
    self.places = self.param("image_position_embedding", embedding, (places, t.width), jnp.float32)
    self.words = self.param("token_embedding", embedding, (t.vocab_size, t.width), jnp.float32)
    self.positions = self.param("text_position_embedding", embedding, (t.max_length, t.width), jnp.float32)
    self.stream = EarlyFusion(c.stream)
    self.tanh_pool = TanhPool(t.dtype, t.init_scheme)
    self.match_projection = Dense(2, normal(0.02))
    self.word_head = WordHead(t.norm_epsilon, t.dtype)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Embeds patches and words. The batch may contain only one of the two. No token reads another one here."""
    encoded = {}
    if "image" in batch:
      tokens = rearrange(self.patches(batch["image"]), "b y x d -> b (y x) d")
      if self.first is not None:
        first = jnp.broadcast_to(self.first[None].astype(tokens.dtype), (len(tokens), 1, tokens.shape[2]))
        tokens = jnp.concatenate([first, tokens], axis=1)
      tokens = tokens + self.places[None].astype(tokens.dtype)
      encoded["image"] = Encoded(tokens, jnp.ones(tokens.shape[:2], bool), tokens[:, 0])
    if "text" in batch:
      encoded["text"] = self.encode_words(batch["text"], rng=rng)
    return encoded

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded:
    """Embeds words, some of which an objective may have hidden. `rng` is ignored."""
    del rng  # embeddings have no randomness
    c = self.config.text
    if ids.shape[1] > c.max_length:
      raise ValueError(f"text has {ids.shape[1]} tokens, more than max_length={c.max_length}")
    tokens = (jnp.take(self.words, ids, axis=0) + self.positions[None, : ids.shape[1]]).astype(c.dtype)
    return Encoded(tokens, ids != c.pad_id, tokens[:, 0])

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """Applies the transformer to words and patches together. `pooled` is computed from the first token of the text."""
    image, text = encoded["image"], encoded["text"]
    fused = self.stream(text, image, rng=rng)
    fused = Encoded(fused.tokens, fused.mask, self.tanh_pool(fused.pooled))
    return dict(zip(("text", "image"), split(fused, (text, image)), strict=True))

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """Logits of image-text matching in float32. Column 1: image and text belong together."""
    return self.match_projection(pooled.astype(jnp.float32))

  def word_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places vocab"]:
    """float32 scores of each word at each place of the fused text (all, or those that were gathered)."""
    del fused  # one head for both
    return self.word_head(tokens, self.words)

  def __call__(self, batch: Batch) -> dict[str, Any]:
    """Runs every part of the model once, for `init`."""
    encoded = self.encode(batch)
    text = self.fuse(encoded)["text"]
    return {"match": self.match_logits(text.pooled), "words": self.word_logits(text.tokens)}
