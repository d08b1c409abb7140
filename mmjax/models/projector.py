"""Projector models: a small bridge turns the tokens of a frozen image tower into words of a language model.

LLaVA (Liu et al. 2023) has a linear layer or an MLP, BLIP-2 (Li et al. 2023) a Q-Former.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.encoders.config import TowerConfig
from mmjax.kinds import Kind
from mmjax.models.blip2 import QFormer, QFormerConfig
from mmjax.models.interleaved import InterleavedConfig, Interleaving
from mmjax.nn.cache import Cache
from mmjax.nn.dense import Dense
from mmjax.nn.mlp import gelu
from mmjax.nn.stochastic import Rngs
from mmjax.types import Encoded


class BridgeConfig(Kind):
  """Base of the bridges between an image tower and a language model."""

  def tokens(self, given: int) -> int:
    """Number of tokens of an image after the bridge, from the number of tokens of the tower."""
    return given

  def build(self, width: int, dtype: str) -> nn.Module:
    """Make the linen module, from Encoded to tokens [batch, tokens, width]."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class LinearBridge(BridgeConfig):
  """One linear layer for every token (Liu et al. 2023, LLaVA, section 4.1)."""

  def build(self, width: int, dtype: str) -> nn.Module:
    return _EachToken(0, width, dtype)


@dataclasses.dataclass(frozen=True)
class MlpBridge(BridgeConfig):
  """Two linear layers with GELU between them for every token (Liu et al. 2024, LLaVA-1.5, section 3.2)."""

  hidden: int = 0
  """Width between the layers. 0: that of the language model."""

  def build(self, width: int, dtype: str) -> nn.Module:
    return _EachToken(self.hidden or width, width, dtype)


@dataclasses.dataclass(frozen=True)
class QFormerBridge(BridgeConfig):
  """A Q-Former whose queries read the image, and a linear layer (Li et al. 2023, BLIP-2, section 3.2)."""

  former: QFormerConfig = QFormerConfig(width=768, depth=12, num_heads=12)
  """The Q-Former. It reads no text here, so it has no word embeddings."""

  def tokens(self, given: int) -> int:
    return self.former.queries

  def build(self, width: int, dtype: str) -> nn.Module:
    return _Queries(self.former, width, dtype)


class _EachToken(nn.Module):
  """Linear layer for each token, or two if `hidden` is not 0. Parameters: projection; hidden_projection."""

  hidden: int
  width: int
  dtype: str

  @nn.compact
  def __call__(self, image: Encoded) -> Float[Array, "batch tokens width"]:
    def layer(features: int, x: Array, name: str) -> Array:
      init = nn.initializers.normal(x.shape[-1] ** -0.5)
      return Dense(features, init, dtype=self.dtype, name=name)(x)

    x = image.tokens.astype(self.dtype)
    x = gelu(layer(self.hidden, x, "hidden_projection")) if self.hidden else x
    return layer(self.width, x, "projection")


class _Queries(nn.Module):
  """Q-Former and a linear layer. Parameters: former, projection."""

  former: QFormerConfig
  width: int
  dtype: str

  @nn.compact
  def __call__(self, image: Encoded) -> Float[Array, "batch tokens width"]:
    queries = QFormer(self.former, name="former")(None, image).tokens
    init = nn.initializers.normal(self.former.width**-0.5)
    return Dense(self.width, init, dtype=self.dtype, name="projection")(queries.astype(self.dtype))


@dataclasses.dataclass(frozen=True)
class ProjectorConfig(InterleavedConfig):
  """A frozen image tower, a bridge, and a frozen language model, which may have low-rank adapters (adapter.kernels).

  With adapters, set adapter.trained to ("^bridge/", "^token_embedding"), which are trained as well.
  """

  bridge: BridgeConfig = MlpBridge()
  """The bridge: linear, mlp or q_former."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.frames != 1:
      raise ValueError(f"frames={self.frames} must be 1: a projector model reads images, and no videos")

  @property
  def places(self) -> int:
    return self.bridge.tokens(tower_tokens(self.image))

  def build(self) -> nn.Module:
    return Projector(self)


@functools.lru_cache(maxsize=8)
def tower_tokens(tower: TowerConfig) -> int:
  """Number of tokens of an image tower."""
  module = tower.build()
  found = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), tower.example(1))[0])
  return found.tokens.shape[1]


class Projector(Interleaving):
  """Model of a ProjectorConfig. The tokens of an image stand in the text as words do, and all later words read them.

  A text has `places` image tokens for each image (Interleaved.copies). Parameters: image, language, token_embedding,
  bridge.

  Example:
    >>> import jax
    >>> from mmjax.encoders import ViTConfig
    >>> from mmjax.models.interleaved import InterleavedWordsConfig
    >>> tiny = dict(width=8, depth=1, num_heads=2)
    >>> text = InterleavedWordsConfig(vocab_size=52, max_length=9, image_id=50, **tiny)
    >>> config = ProjectorConfig(image=ViTConfig(image_size=8, patch_size=4, **tiny), text=text)
    >>> config.build().init_with_output(jax.random.key(0), config.example(2))[0].shape, config.places
    ((2, 9, 52), 4)
  """

  config: ProjectorConfig

  def setup(self) -> None:
    super().setup()
    c = self.config
    self.bridge = c.bridge.build(c.text.width, c.text.dtype)

  @nn.nowrap
  def connected(self, features: Array, mask: Array) -> Array:
    """Tokens of each image from the bridge."""
    return self.bridge(Encoded(features[:, 0], mask[:, 0], features[:, 0, 0]))

  def decode(
    self,
    ids: Int[Array, "batch length"],
    context: Encoded | None,
    *,
    rng: Rngs = None,
    cache: Cache | None = None,
    text: Encoded | None = None,
  ) -> Any:
    """Float32 logits [batch, length, vocab] of the word that follows each of `ids`.

    Args:
      ids: token ids. The first image token of a row stands for the first token of its first image, and so on.
      context: encoded images. None: `ids` has no image tokens, as after the first call with a cache.
      rng: ignored; the language model runs as in evaluation.
      cache: from `empty_cache` or from the previous call. None: no cache.
      text: ignored; the language model embeds the words itself.
    Returns: logits. With a cache, (logits, updated cache).
    """
    del rng, text
    x = self.embed(ids)
    if context is not None:
      count, is_image = context.tokens.shape[1], self.is_image(ids)
      number = jnp.cumsum(is_image, axis=1, dtype=jnp.int32) - 1
      shown = jnp.take_along_axis(context.tokens, jnp.clip(number, 0, count - 1)[:, :, None], axis=1)
      x = jnp.where((is_image & (number < count))[:, :, None], shown.astype(x.dtype), x)
    tokens, cache = self.language.through(x, cache=cache)
    logits = self.scores(tokens)
    return logits if cache is None else (logits, cache)

  @nn.nowrap
  def empty_cache(self, batch_size: int, length: int) -> Cache:
    """Empty cache for `length` tokens of each of `batch_size` texts."""
    return self.config.text.cache(batch_size, length)
