"""FLAVA: an image, a text and a multimodal encoder, each with its own masked modelling (Singh et al. 2022)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.encoders.bert import bert_config
from mmjax.encoders.text import TextConfig
from mmjax.encoders.vit import ViTConfig
from mmjax.fusion.joint import MergedAttention
from mmjax.fusion.tokens import split
from mmjax.models.two_tower import TwoTower, TwoTowerConfig
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import TransformerConfig
from mmjax.nn.word_head import WordHead
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class FlavaConfig(TwoTowerConfig):
  """Two towers and the encoder that reads both. Raises ValueError for a text that reads only backwards."""

  image: ViTConfig = ViTConfig(pool="cls")
  """The image encoder."""
  text: TextConfig = bert_config(norm="pre", input_norm=False, token_types=0, tanh_pool=False)
  """The text encoder. Texts begin with a [CLS] token (data.tokenizer.cls_token), which stands for the text."""
  fusion_depth: int = 6
  """Blocks of the multimodal encoder, otherwise like the text encoder."""
  num_codes: int = 0
  """Numbers of a visual codebook, for discrete targets of hidden patches (FLAVA: dVAE, 8192); 0: their pixels."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.text.causal:
      raise ValueError("FLAVA guesses a word from both sides: set text.causal=False")

  @property
  def fusion(self) -> TransformerConfig:
    """The multimodal encoder."""
    shared = {f.name: getattr(self.text, f.name) for f in dataclasses.fields(TransformerConfig)}
    return TransformerConfig(**shared | {"depth": self.fusion_depth, "input_norm": False})

  @property
  def patch_outputs(self) -> int:
    """What is guessed of a patch: a score per code, or its pixels."""
    return self.num_codes or 3 * self.image.patch_size**2

  def build(self) -> nn.Module:
    return Flava(self)


class Flava(TwoTower):
  """Parameters: those of TwoTower; fusion; match_projection; word_head and patch_projection (one modality alone),
  fused_word_head and fused_patch_projection (both together)."""

  config: FlavaConfig
  token_order = ("class", "image", "text")

  def setup(self) -> None:
    super().setup()
    c = self.config
    self.fusion = MergedAttention(c.fusion)
    self.match_projection = Dense(2, nn.initializers.normal(0.02))
    self.word_head = WordHead(c.text.norm_epsilon, c.text.dtype)
    self.fused_word_head = WordHead(c.text.norm_epsilon, c.text.dtype)
    self.patch_projection = Dense(c.patch_outputs, nn.initializers.normal(0.02))
    self.fused_patch_projection = Dense(c.patch_outputs, nn.initializers.normal(0.02))

  def encode_words(
    self, ids: Int[Array, "batch length"], *, rng: Rngs = None, segment: Int[Array, "batch length"] | None = None
  ) -> Encoded:
    """The text encoder on these ids, some of which an objective has hidden."""
    return self.text(ids, segment, rng=fold_in(rng, 1))

  def encode_patches(
    self, images: Float[Array, "batch height width 3"], hidden: Bool[Array, "batch patches"], *, rng: Rngs = None
  ) -> Encoded:
    """The image encoder, a learned vector in place of the patches that an objective has hidden."""
    tower: Any = self.image  # a vision transformer, see FlavaConfig
    return tower(images, rng=fold_in(rng, 0), hidden=hidden)

  def fuse(self, image: Encoded, text: Encoded, *, rng: Rngs = None) -> dict[str, Encoded]:
    """What every patch and word says after all have read all; `pooled` is the multimodal encoder's class token."""
    fused = self.fusion(image, text, rng=rng)
    patches, words = split(fused, (image, text))
    return {"text": words, "image": patches}

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """float32; column 1: picture and text belong together."""
    return self.match_projection(pooled.astype(jnp.float32))

  def word_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places vocab"]:
    """float32 scores of each word at each place of the fused text, or of the text alone (MLM)."""
    head = self.fused_word_head if fused else self.word_head
    return head(tokens, self.text.variables["params"]["token_embedding"])

  def patch_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places outputs"]:
    """float32 scores of codes, or pixels (row, column, channel), of patches of the fused picture, or of it alone."""
    head = self.fused_patch_projection if fused else self.patch_projection
    return head(tokens.astype(jnp.float32))

  def __call__(self, batch: Batch) -> dict[str, Any]:
    """What `init` runs: everything once."""
    encoded = self.encode(batch)
    nothing = jnp.zeros((len(batch["image"]), self.config.image.grid**2), bool)
    image, text = self.encode_patches(batch["image"], nothing), encoded["text"]
    fused = self.fuse(image, text)
    return self.project(encoded) | {
      "match": self.match_logits(fused["text"].pooled),
      "words": self.word_logits(text.tokens, fused=False),
      "fused_words": self.word_logits(fused["text"].tokens),
      "patches": self.patch_logits(image.tokens, fused=False),
      "fused_patches": self.patch_logits(fused["image"].tokens),
    }
