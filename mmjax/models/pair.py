"""The smallest model of two modalities: a picture, a word, a fusion of any kind, and an answer."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.fusion.config import FusionConfig, make_fusion
from mmjax.models.config import ModelConfig
from mmjax.nn.dense import Dense
from mmjax.nn.embeddings import PatchEmbed
from mmjax.nn.stochastic import Rngs
from mmjax.types import Batch, Encoded


@dataclasses.dataclass(frozen=True)
class PairConfig(ModelConfig):
  """A picture's tower, a table of words, a fusion, and a head that chooses the answer."""

  image: ViTConfig = ViTConfig(image_size=8, patch_size=4, width=32, depth=1, num_heads=4, mlp_dim=64, pool="mean")
  """The picture's tower; early fusion uses its patch embedding only. Words are embeddings of the same width."""
  fusion: FusionConfig = FusionConfig(width=32, depth=2, num_heads=4, mlp_dim=64)
  """Which operator, and its sizes. With kind="late", its width is the number of answers."""
  num_words: int = 10
  """Words there are."""
  num_answers: int = 2
  """Answers there are."""
  blind: Literal["", "image", "text"] = ""
  """A control: the modality that is not shown (zeros stand in its place)."""

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
  """Parameters: image, text, fusion, answer_projection (late fusion has heads of its own instead)."""

  config: PairConfig

  def setup(self) -> None:
    c = self.config
    self.image = Patches(c.image) if c.fusion.kind == "early" else ViT(c.image)
    self.text = Words(c.num_words, c.image.width)
    self.fusion = make_fusion(c.fusion)
    self.answer_projection = Dense(c.num_answers, nn.initializers.lecun_normal())

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Picture and word, each on its own."""
    shown = {name: jnp.zeros_like(x) if name == self.config.blind else x for name, x in batch.items()}
    return {"image": self.image(shown["image"], rng=rng), "text": self.text(shown["text"])}

  def fuse(self, image: Encoded, text: Encoded, *, rng: Rngs = None) -> dict[str, Encoded]:
    """What they say together; the word comes first, which is what reads where one reads the other."""
    return {"joint": self.fusion(text, image, rng=rng)}

  def answer_logits(self, pooled: Float[Array, "batch width"]) -> Float[Array, "batch answers"]:
    """One logit per answer, float32."""
    pooled = pooled.astype(jnp.float32)
    return pooled if self.config.fusion.kind == "late" else self.answer_projection(pooled)

  def __call__(self, batch: Batch) -> Float[Array, "batch answers"]:
    encoded = self.encode({name: batch[name] for name in ("image", "text")})
    return self.answer_logits(self.fuse(encoded["image"], encoded["text"])["joint"].pooled)


class Patches(nn.Module):
  """What a picture is before any tower: patch embeddings that know their places."""

  config: ViTConfig

  @nn.compact
  def __call__(self, images: Float[Array, "batch height width 3"], *, rng: Rngs = None) -> Encoded:
    del rng  # nothing random happens
    c = self.config
    x = rearrange(PatchEmbed(c.width, c.patch_size, c.dtype, name="stem")(images), "b y x d -> b (y x) d")
    init = nn.initializers.normal(c.width**-0.5)
    positions = self.param("position_embedding", init, (c.grid**2, c.width), jnp.float32)
    x = x + positions[None].astype(x.dtype)
    return Encoded(x, jnp.ones(x.shape[:2], bool), x.mean(1))


class Words(nn.Module):
  """One vector per word."""

  num_words: int
  width: int

  @nn.compact
  def __call__(self, ids: Int[Array, "batch length"]) -> Encoded:
    init = nn.initializers.normal(1.0)
    table = self.param("token_embedding", init, (self.num_words, self.width), jnp.float32)
    x = jnp.take(table, ids, axis=0)
    return Encoded(x, jnp.ones(ids.shape, bool), x[:, 0])
