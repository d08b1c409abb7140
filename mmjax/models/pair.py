"""Minimal model of two modalities: an image, a word, a fusion of any kind, and a classifier of answers."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.fusion.config import FusionConfig, make_fusion
from mmjax.fusion.late import Decision, decisions
from mmjax.models.config import ModelConfig
from mmjax.nn.dense import Dense
from mmjax.nn.embeddings import PatchEmbed
from mmjax.nn.stochastic import Rngs
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class PairConfig(ModelConfig):
  """An image encoder, word embeddings, a fusion, and a head for the answer."""

  image: ViTConfig = ViTConfig(image_size=8, patch_size=4, width=32, depth=1, num_heads=4, mlp_dim=64, pool="mean")
  """The image encoder. Early fusion uses only its patch embedding. Word embeddings have the same width."""
  fusion: FusionConfig = FusionConfig(width=32, depth=2, num_heads=4, mlp_dim=64)
  """The fusion. With kind="late", its width is the number of answers."""
  num_words: int = 10
  """Number of words."""
  num_answers: int = 2
  """Number of answers."""
  blind: Literal["", "image", "text"] = ""
  """Modality that is replaced by zeros, as a control."""

  def __post_init__(self) -> None:
    if self.fusion.kind == "late" and self.fusion.width != self.num_answers:
      raise ValueError(
        f"late fusion averages decisions: fusion.width={self.fusion.width} must be num_answers={self.num_answers}"
      )

  def example(self, batch_size: int) -> dict[str, Array]:
    return {"image": self.image.example(batch_size), "text": jnp.zeros((batch_size, 1), jnp.int32)}

  def build(self) -> nn.Module:
    return PairModel(self)


class PairModel(nn.Module):
  """Minimal model of two modalities.

  Parameters: image, text, fusion, answer_projection (except with late fusion, which has its own heads).
  """

  config: PairConfig

  def setup(self) -> None:
    c = self.config
    self.image = Patches(c.image) if c.fusion.kind == "early" else ViT(c.image)
    self.text = Words(c.num_words, c.image.width)
    self.fusion = make_fusion(c.fusion)
    self.answer_projection = Dense(c.num_answers, nn.initializers.lecun_normal())

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes image and word separately."""
    shown = {name: jnp.zeros_like(x) if name == self.config.blind else x for name, x in batch.items()}
    return {"image": self.image(shown["image"], rng=rng), "text": self.text(shown["text"])}

  def fuse(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> dict[str, Encoded]:
    """Fuses image and word. The word comes first, so that with cross-attention the word reads the image."""
    image, text = encoded["image"], encoded["text"]
    return {"joint": self.fusion(text, image, rng=rng)}

  def answer_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch answers"]:
    """Scores of the answers, in float32."""
    pooled = pooled.astype(jnp.float32)
    return pooled if self.config.fusion.kind == "late" else self.answer_projection(pooled)

  def modality_logits(self, fused: dict[str, Encoded]) -> dict[str, Decision]:
    """Scores of the answers from each modality alone, for late fusion."""
    return decisions(fused["joint"], ("text", "image"), self.config.fusion.kind)

  def __call__(self, batch: Batch) -> Float[Array, "batch answers"]:
    """Scores of the answers for a batch."""
    encoded = self.encode({name: batch[name] for name in ("image", "text")})
    return self.answer_logits(self.fuse(encoded)["joint"].pooled)


class Patches(nn.Module):
  """Patch embeddings with position embeddings, without a transformer."""

  config: ViTConfig

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None) -> Encoded:
    del rng  # the module has no randomness
    c = self.config
    x = rearrange(PatchEmbed(c.width, c.patch_size, c.dtype, name="stem")(images), "b y x d -> b (y x) d")
    init = nn.initializers.normal(c.width**-0.5)
    positions = self.param("position_embedding", init, (c.grid**2, c.width), jnp.float32)
    x = x + positions[None].astype(x.dtype)
    return Encoded(x, jnp.ones(x.shape[:2], bool), x.mean(1))


class Words(nn.Module):
  """Word embeddings."""

  num_words: int
  width: int

  @nn.compact
  def __call__(self, ids: Int[Array, "batch length"]) -> Encoded:
    init = nn.initializers.normal(1.0)
    table = self.param("token_embedding", init, (self.num_words, self.width), jnp.float32)
    x = jnp.take(table, ids, axis=0)
    return Encoded(x, jnp.ones(ids.shape, bool), x[:, 0])
