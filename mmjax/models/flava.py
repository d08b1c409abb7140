"""FLAVA: image, text and multimodal encoders, each with masked modelling (Singh et al. 2022)."""

import dataclasses
from collections.abc import Mapping
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
  """An image encoder, a text encoder, and a multimodal encoder. Raises ValueError if the text is causal."""

  image: ViTConfig = ViTConfig(pool="cls")
  """The image encoder."""
  text: TextConfig = bert_config(norm="pre", input_norm=False, token_types=0, tanh_pool=False)
  """The text encoder. Texts begin with a [CLS] token (data.tokenizer.cls_token), which represents the text."""
  fusion_depth: int = 6
  """Blocks of the multimodal encoder. Its other fields are those of the text encoder."""
  num_codes: int = 0
  """Size of a visual codebook, for discrete targets of hidden patches (FLAVA: dVAE, 8192). 0: pixels as targets.
  `MaskedPatches.codebook` or `MaskedPatches.codes` gives the targets."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.text.causal:
      raise ValueError("FLAVA predicts a hidden word from both sides: set text.causal=False")

  @property
  def fusion(self) -> TransformerConfig:
    """Configuration of the multimodal encoder."""
    shared = {f.name: getattr(self.text, f.name) for f in dataclasses.fields(TransformerConfig)}
    return TransformerConfig(**shared | {"depth": self.fusion_depth, "input_norm": False})

  @property
  def patch_outputs(self) -> int:
    """Number of outputs per predicted patch: a score per code, or its pixels."""
    return self.num_codes or 3 * self.image.patch_size**2

  def build(self) -> nn.Module:
    return Flava(self)


class Flava(TwoTower):
  """FLAVA.

  Parameters: those of TwoTower, fusion, match_projection; word_head and patch_projection (for one modality alone),
  fused_word_head and fused_patch_projection (for both together).
  """

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
    """Encodes token ids, some of which an objective may have hidden."""
    return self.text(ids, segment, rng=fold_in(rng, 1))

  def encode_patches(
    self, images: Float[Array, "batch height width 3"], hidden: Bool[Array, "batch patches"], *, rng: Rngs = None
  ) -> Encoded:
    """Encodes images in which a learned vector replaces the patches that an objective has hidden."""
    tower: Any = self.image  # a vision transformer, see FlavaConfig
    return tower(images, rng=fold_in(rng, 0), hidden=hidden)

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """Fused tokens of text and image, which attend to each other. `pooled` is the multimodal encoder's class token."""
    image, text = encoded["image"], encoded["text"]
    fused = self.fusion(image, text, rng=rng)
    patches, words = split(fused, (image, text))
    return {"text": words, "image": patches}

  def match_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch 2"]:
    """Logits of image-text matching in float32. Column 1: image and text belong together."""
    return self.match_projection(pooled.astype(jnp.float32))

  def word_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places vocab"]:
    """Scores of all words in float32, from tokens of the fused text or (fused=False) of the text alone."""
    head = self.fused_word_head if fused else self.word_head
    return head(tokens, self.text.variables["params"]["token_embedding"])

  def patch_logits(
    self, tokens: Float[Array, "batch places width"], *, fused: bool = True
  ) -> Float[Array, "batch places outputs"]:
    """Scores of codes, or pixels (row, column, channel), in float32.

    They are computed from patches of the fused image or (fused=False) of the image alone.
    """
    head = self.fused_patch_projection if fused else self.patch_projection
    return head(tokens.astype(jnp.float32))

  def __call__(self, batch: Batch) -> dict[str, Any]:
    """Runs every part of the model once, for `init`."""
    encoded = self.encode(batch)
    nothing = jnp.zeros((len(batch["image"]), self.config.image.grid**2), bool)
    image, text = self.encode_patches(batch["image"], nothing), encoded["text"]
    fused = self.fuse({"image": image, "text": text})
    return self.project(encoded) | {
      "match": self.match_logits(fused["text"].pooled),
      "words": self.word_logits(text.tokens, fused=False),
      "fused_words": self.word_logits(fused["text"].tokens),
      "patches": self.patch_logits(image.tokens, fused=False),
      "fused_patches": self.patch_logits(fused["image"].tokens),
    }
