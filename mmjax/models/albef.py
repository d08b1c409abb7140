"""ALBEF: align before fuse (Li et al. 2021).

Two encoders are trained by a contrastive loss. A text transformer with cross-attention to the image follows.
"""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.bert import bert_config
from mmjax.encoders.text import TextConfig, TextTransformer
from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.fusion.cross import CrossAttention
from mmjax.models.comparing import Comparing, ComparingConfig
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import TransformerConfig
from mmjax.nn.word_head import WordHead
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class AlbefConfig(ComparingConfig):
  """An image encoder, and a text transformer whose second part attends to the image.

  Raises ValueError if the text is causal, or if its first token does not represent it.
  """

  image: ViTConfig = ViTConfig(pool="cls", class_position=True)
  """The image encoder."""
  text: TextConfig = bert_config(depth=6, token_types=0, tanh_pool=False, max_length=30)
  """The text encoder (first part of the text transformer). Texts begin with a [CLS] token (data.tokenizer.cls_token),
  which represents the text and, after the fusion, the pair.
  """
  fusion_depth: int = 6
  """Blocks of the fusion (second part of the text transformer), which adds cross-attention to the image tokens."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.text.causal:
      raise ValueError("ALBEF predicts a hidden word from both sides: set text.causal=False")
    if self.text.pool != "first":
      raise ValueError(f'the first token represents text and pair: set text.pool="first", not "{self.text.pool}"')
    if self.fusion_depth < 1:
      raise ValueError(f"fusion_depth={self.fusion_depth} must be at least 1")

  @property
  def fusion(self) -> TransformerConfig:
    """Configuration of the fusion: that of the text encoder, with its own depth and without the norm on embeddings."""
    shared = {f.name: getattr(self.text, f.name) for f in dataclasses.fields(TransformerConfig)}
    return TransformerConfig(**shared | {"depth": self.fusion_depth, "input_norm": False})

  def build(self) -> nn.Module:
    return Albef(self)


class Albef(Comparing):
  """ALBEF. Parameters: image, text, fusion, match_projection, word_head, image/text_projection, logit_scale."""

  config: AlbefConfig

  def setup(self) -> None:
    c = self.config
    self.image, self.text = ViT(c.image), TextTransformer(c.text)
    self.fusion = CrossAttention(c.fusion)
    self.match_projection = Dense(2, nn.initializers.normal(0.02))
    self.word_head = WordHead(c.text.norm_epsilon, c.text.dtype)
    self.setup_comparing(c.image.pooled_width, c.text.width)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the images and texts of the batch separately. The batch may contain only one of the two."""
    encoded = {"image": self.image(batch["image"], rng=fold_in(rng, 0))} if "image" in batch else {}
    return encoded | ({"text": self.encode_words(batch["text"], rng=rng)} if "text" in batch else {})

  def encode_words(self, ids: Int[Array, "batch length"], *, rng: Rngs = None) -> Encoded:
    """Encodes token ids, some of which an objective may have hidden."""
    return self.text(ids, rng=fold_in(rng, 1))

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """Fused text tokens, which have read the image tokens. `pooled` is the first of them and represents the pair."""
    image, text = encoded["image"], encoded["text"]
    return {"text": self.fusion(text, image, rng=fold_in(rng, 2))}

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """Logits of image-text matching in float32. Column 1: image and text belong together."""
    return self.match_projection(pooled.astype(jnp.float32))

  def word_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places vocab"]:
    """Scores of all words in float32, at all positions of the fused text or at gathered ones."""
    del fused  # one head for both
    return self.word_head(tokens, self.text.variables["params"]["token_embedding"])

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model once, for `init`."""
    encoded = self.encode(batch)
    fused = self.fuse(encoded)["text"]
    heads = {"match": self.match_logits(fused.pooled), "words": self.word_logits(fused.tokens)}
    return self.project(encoded) | heads
