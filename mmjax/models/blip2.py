"""BLIP-2's retrieval model: learned queries read the image, and a text reads them (Li et al. 2023, section 3.1)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.models.config import ModelConfig
from mmjax.nn.attention import MultiHeadAttention
from mmjax.nn.dense import Dense
from mmjax.nn.initial import embedding_init, kernel_init
from mmjax.nn.norm import normalize
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import TransformerConfig, block_attention, block_mlp, norm_layer, refuse_block_options
from mmjax.types import Batch, Encoded

_ABSENT = ("relative_buckets", "layer_scale", "drop_path", "dropout", "attention_dropout", "remat")


@dataclasses.dataclass(frozen=True)
class QFormerConfig(TransformerConfig):
  """A transformer for queries and words. Raises ValueError if the fields are inconsistent.

  Its blocks differ, so `scan` has no effect.
  """

  norm_epsilon: float = 1e-12
  norm: Literal["post"] = "post"
  input_norm: bool = True
  vocab_size: int = 30_523
  """Number of token ids."""
  max_length: int = 512
  """Longest text: the number of positions."""
  pad_id: int = 0
  """Token id of padding."""
  queries: int = 32
  """Number of learned queries."""
  cross_every: int = 2
  """Queries read the image in one block out of this many, the first."""

  def __post_init__(self) -> None:
    super().__post_init__()
    refuse_block_options(self, "a Q-Former", _ABSENT)
    if self.norm != "post" or not self.input_norm:
      raise ValueError('a Q-Former has norm="post" and input_norm=True, as BERT')
    if self.queries < 1 or self.cross_every < 1:
      raise ValueError(f"queries={self.queries} and cross_every={self.cross_every} must be at least 1")
    if not 0 <= self.pad_id < self.vocab_size:
      raise ValueError(f"pad_id={self.pad_id} must lie in [0, vocab_size={self.vocab_size})")


@dataclasses.dataclass(frozen=True)
class Blip2RetrievalConfig(ModelConfig):
  """An image encoder, and a Q-Former that reads it."""

  image: ViTConfig = ViTConfig(
    image_size=224, patch_size=14, width=1408, depth=39, num_heads=16, mlp_dim=6144, pool="cls", class_position=True
  )
  """The image encoder."""
  text: QFormerConfig = QFormerConfig()
  """The Q-Former."""
  embed_dim: int = 256
  """Dimension of the common embedding space."""

  def build(self) -> nn.Module:
    return Blip2Retrieval(self)


class QFormerBlock(nn.Module):
  """Post-norm block over queries, then words. Queries may read the image, and have an MLP of their own.

  Parameters: attention, norm1; cross_attention, norm_cross; query_mlp, query_norm2 for queries; mlp, norm2 for words.

  Attributes:
    config: configuration of the stack.
    queries: number of tokens that are queries; they come first. 0: a text alone.
    reads: if True, queries read the image.
  """

  config: QFormerConfig
  queries: int
  reads: bool

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "batch length width"],
    mask: Bool[Array, "batch length"],
    image: Float[Array, "batch patches image_width"] | None,
  ) -> Float[Array, "batch length width"]:
    c = self.config
    init = kernel_init(c.init_scheme, c.width**-0.5 * (2 * c.depth) ** -0.5)
    x = norm_layer(c, "norm1")(x + MultiHeadAttention(**block_attention(c, init), name="attention")(x, mask=mask))
    parts = []
    if self.queries:
      query = x[:, : self.queries]
      if self.reads:
        cross = MultiHeadAttention(**block_attention(c, init), name="cross_attention")
        query = norm_layer(c, "norm_cross")(query + cross(query, image))
      parts.append(norm_layer(c, "query_norm2")(query + block_mlp(c, init, "query_mlp")(query)))
    if x.shape[1] > self.queries:
      words = x[:, self.queries :]
      parts.append(norm_layer(c, "norm2")(words + block_mlp(c, init, "mlp")(words)))
    return jnp.concatenate(parts, axis=1)


class QFormer(nn.Module):
  """Q-Former. Parameters: query_tokens, token_embedding, position_embedding, input_norm, block_0, block_1, ..."""

  config: QFormerConfig

  @nn.compact
  def __call__(self, ids: Int[Array, "batch length"] | None, image: Encoded | None) -> Encoded:
    """Encodes an image by queries, a text alone, or both together.

    Args:
      ids: token ids. None: no text.
      image: the image's tokens. None: no queries.
    Returns: the tokens: of the queries, and then of the text. `pooled` is the first of them.
    Raises: ValueError: the text is longer than max_length, or there is neither text nor image.
    """
    c = self.config
    if ids is not None and ids.shape[1] > c.max_length:
      raise ValueError(f"text has {ids.shape[1]} tokens, more than max_length={c.max_length}")
    if ids is None and image is None:
      raise ValueError("a Q-Former needs a text, an image, or both")
    init = embedding_init(c.init_scheme, 0.02, c.width)
    table = lambda name, rows: self.param(name, init, (rows, c.width), jnp.float32)
    parts, masks, queries = [], [], 0
    if image is not None:
      batch, queries = image.tokens.shape[0], c.queries
      parts.append(jnp.broadcast_to(table("query_tokens", queries)[None], (batch, queries, c.width)))
      masks.append(jnp.ones((batch, queries), bool))
    if ids is not None:
      words = jnp.take(table("token_embedding", c.vocab_size), ids, axis=0)
      parts.append(words + table("position_embedding", c.max_length)[None, : ids.shape[1]])
      masks.append(ids != c.pad_id)
    x, mask = jnp.concatenate(parts, axis=1).astype(c.dtype), jnp.concatenate(masks, axis=1)
    x = norm_layer(c, "input_norm")(x)
    patches = None if image is None else image.tokens.astype(c.dtype)
    for layer in range(c.depth):
      reads = layer % c.cross_every == 0
      x = QFormerBlock(c, queries, reads, name=f"block_{layer}")(x, mask, patches)
    return Encoded(x, mask, x[:, 0])


class Blip2Retrieval(nn.Module):
  """transformers' Blip2ForImageTextRetrieval.

  An image has one embedding for each query. Its similarity with a text is the largest of theirs (section 3.1).

  Parameters: image, text (the Q-Former), image_projection, text_projection, match_projection.
  """

  config: Blip2RetrievalConfig

  def setup(self) -> None:
    c = self.config
    init = nn.initializers.normal(c.text.width**-0.5)
    self.image, self.text = ViT(c.image), QFormer(c.text)
    self.image_projection, self.text_projection = Dense(c.embed_dim, init), Dense(c.embed_dim, init)
    self.match_projection = Dense(2, init)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the images and texts of the batch separately. The batch may contain only one of the two.

    `tokens` of an image are its patches, which `fuse` reads, and `pooled` holds its queries one after the other.
    """
    encoded = {}
    if "image" in batch:
      image = self.image(batch["image"], rng=fold_in(rng, 0))
      queries = self.text(None, image).tokens
      encoded["image"] = Encoded(image.tokens, image.mask, rearrange(queries, "b q d -> b (q d)"))
    if "text" in batch:
      encoded["text"] = self.text(batch["text"], None)
    return encoded

  def fuse(self, ids: Int[Array, "batch length"], image: Encoded) -> Encoded:
    """Queries and words that read each other, while the queries read the image. `tokens` are those of the queries."""
    fused = self.text(ids, image)
    queries = fused.tokens[:, : self.config.text.queries]
    return Encoded(queries, jnp.ones(queries.shape[:2], bool), queries[:, 0])

  def match_logits(self, queries: Float[Array, "batch queries width"]) -> Float[Array, "batch 2"]:
    """Logits of image-text matching in float32: the mean over the queries. Column 1: image and text belong together."""
    return self.match_projection(queries.astype(jnp.float32)).mean(1)

  def project(self, encoded: Mapping[str, Encoded]) -> dict[str, Array]:
    """Unit-norm float32 embeddings: [batch, queries, dim] of images, and [batch, dim] of texts."""
    found: dict[str, Array] = {}
    if "image" in encoded:
      queries = rearrange(encoded["image"].pooled, "b (q d) -> b q d", q=self.config.text.queries)
      found["image"] = normalize(self.image_projection(queries.astype(jnp.float32)))
    if "text" in encoded:
      found["text"] = normalize(self.text_projection(encoded["text"].pooled.astype(jnp.float32)))
    return found

  @nn.jit
  def encode_image(self, images: Float[Array, "batch height width 3"]) -> Float[Array, "batch queries dim"]:
    """Unit-norm float32 embeddings of normalised images, one for each query."""
    return self.project(self.encode({"image": images}))["image"]

  @nn.jit
  def encode_text(self, ids: Int[Array, "batch length"]) -> Float[Array, "batch dim"]:
    """Unit-norm float32 embeddings of token ids."""
    return self.project(self.encode({"text": ids}))["text"]

  @nn.nowrap
  def similarities(
    self, image: Float[Array, "images queries dim"], text: Float[Array, "texts dim"]
  ) -> Float[Array, "images texts"]:
    """Similarity of each image with each text, from their embeddings: the largest of its queries."""
    return jnp.einsum("iqd,td->iqt", image, text).max(1)

  def __call__(self, batch: Batch) -> dict[str, Any]:
    """Runs every part of the model once, for `init`."""
    encoded = self.encode(batch)
    return self.project(encoded) | {"match": self.match_logits(self.fuse(batch["text"], encoded["image"]).tokens)}
