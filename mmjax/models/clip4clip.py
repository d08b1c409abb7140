"""CLIP4Clip: retrieval of videos with the weights of an image-text model (Luo et al. 2022)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float

from mmjax.encoders.video import encode_frames
from mmjax.models.shared_space import SharedSpace
from mmjax.models.two_tower import TwoTowerConfig
from mmjax.nn.dense import Dense
from mmjax.nn.initial import embedding_init
from mmjax.nn.norm import normalize
from mmjax.nn.pooling import TanhPool, mean_pool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.temporal import TemporalEncoder
from mmjax.nn.transformer import Transformer, TransformerConfig
from mmjax.types import Batch, Encoded

VIDEO = "video"
"""Name of the array of the frames in a batch."""
_STREAM = 100  # number of the random stream of the frames; towers and their views have small numbers


@dataclasses.dataclass(frozen=True)
class Clip4ClipConfig(TwoTowerConfig):
  """Configuration of CLIP4Clip. Raises ValueError if the fields do not fit.

  The frames of the array `video` go through the image tower and its projection. Parameters have the paths of a
  TwoTowerConfig, so that `--pretrained.path` of an image-text model initialises all but the encoder of the order.
  """

  temporal: Literal["mean", "lstm", "transformer", "tight"] = "mean"
  """Similarity of a video and a text. mean: cosine with the mean frame (meanP). lstm, transformer: likewise, after an
  encoder of the order of the frames (seqLSTM, seqTransf). tight: a score of a transformer that reads the text and the
  frames together (tightTransf), which the term PairSoftmax trains."""
  frames: int = 12
  """Frames of a clip (Video.frames)."""
  temporal_depth: int = 4
  """Blocks of the transformer over frames."""
  temporal_heads: int = 8
  """Attention heads of the transformer over frames."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.frames < 1:
      raise ValueError(f"frames={self.frames} must be at least 1")
    _ = self.mixer  # refuses what does not fit

  @property
  def mixer(self) -> TransformerConfig:
    """Configuration of the transformer over frames: CLIP's blocks, at the width of the embeddings."""
    return TransformerConfig(
      width=self.embed_dim, depth=self.temporal_depth, num_heads=self.temporal_heads, activation="quick_gelu"
    )

  def example(self, batch_size: int) -> dict[str, Array]:
    frames = jnp.repeat(self.image.example(batch_size)[:, None], self.frames, axis=1)
    return {VIDEO: frames, "text": self.text.example(batch_size)}

  def build(self) -> nn.Module:
    return Clip4Clip(self)


class Clip4Clip(SharedSpace):
  """Model of a Clip4ClipConfig.

  Parameters: those of TwoTower, and `temporal` (lstm, transformer) or `tight`.

  Example:
    >>> import jax
    >>> from mmjax.encoders import TextConfig, ViTConfig
    >>> tiny = dict(width=8, depth=1, num_heads=2)
    >>> image, text = ViTConfig(image_size=8, patch_size=4, **tiny), TextConfig(max_length=4, **tiny)
    >>> config = Clip4ClipConfig(image=image, text=text, embed_dim=16, frames=3, temporal="lstm")
    >>> embeddings, variables = config.build().init_with_output(jax.random.key(0), config.example(2))
    >>> embeddings["video"].shape, embeddings["text"].shape
    ((2, 16), (2, 16))
  """

  config: Clip4ClipConfig

  def setup(self) -> None:
    super().setup()
    c = self.config
    if c.temporal == "tight":
      self.tight = TightScore(c.mixer, c.frames)
    elif c.temporal != "mean":
      self.temporal = TemporalEncoder(c.temporal, c.mixer, c.frames)

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encode the arrays of the batch.

    Args:
      batch: arrays by name. "video" is frames [batch, frames, height, width, 3], with PADDED after the end of a clip
        (mmjax.data.columns.video).
      rng: one key per example. None: no randomness.
    Returns: encodings by name. Tokens of "video" are the projected vectors of the frames. `pooled` is the mean of the
      unit-norm frames, after the encoder of their order.
    """
    encoded = super().encode({name: array for name, array in batch.items() if name != VIDEO}, rng=rng)
    if VIDEO in batch:
      encoded[VIDEO] = self._video(batch[VIDEO], fold_in(rng, _STREAM))
    return encoded

  def embedding(self, name: str, encoded: Encoded) -> Float[Array, "batch dim"]:
    """Project an encoding to the shared space. That of a video is there already."""
    return encoded.pooled if name == VIDEO else super().embedding(name, encoded)

  def pair_scores(
    self, encoded: Mapping[str, Encoded], texts: Float[Array, "batch candidates width"]
  ) -> Float[Array, "batch candidates"]:
    """Compute the score of each video with some texts, for temporal="tight". One video is in memory at a time.

    Args:
      encoded: encodings; those of "video" are read.
      texts: for each video, the pooled vectors of its candidates (Encoded.pooled of "text").
    """
    video, (tight, variables) = encoded[VIDEO], self.tight.unbind()
    flat = rearrange(texts, "b m d -> (b m) d")
    projected = self.embedding("text", Encoded(flat[:, None], jnp.ones((len(flat), 1), bool), flat))
    candidates = rearrange(projected, "(b m) d -> b m d", m=texts.shape[1])

    @jax.checkpoint
    def of_video(one: tuple[Array, Array, Array]) -> Any:
      frames, mask, texts = one
      return tight.apply(variables, frames, mask, texts)

    return jax.lax.map(of_video, (video.tokens, video.mask, candidates))

  def __call__(self, batch: Batch) -> dict[str, Any]:
    """Run all parts once, for `init`. Returns embeddings by name, and the scores of the first video."""
    encoded = self.encode(batch)
    found: dict[str, Any] = dict(self.project(encoded))
    if self.config.temporal == "tight":
      first = jax.tree.map(lambda leaf: leaf[0], encoded[VIDEO])
      found["scores"] = self.tight(first.tokens, first.mask, self.embedding("text", encoded["text"]))
    return found

  def _video(self, frames: Float[Array, "batch frames height width 3"], rng: Rngs) -> Encoded:
    c = self.config
    if frames.shape[1] > c.frames:
      raise ValueError(f"clips have {frames.shape[1]} frames, but frames={c.frames}")
    encoded, mask = encode_frames(self.image, frames, rng=fold_in(rng, 0))
    vectors = rearrange(super().embedding("image", encoded), "(b t) d -> b t d", t=frames.shape[1])
    if c.temporal in ("lstm", "transformer"):
      vectors = self.temporal(vectors, mask, rng=fold_in(rng, 1))
    return Encoded(vectors, mask, mean_pool(normalize(vectors), mask))


class TightScore(nn.Module):
  """Score of a video with each of some texts: a transformer reads [text; frames] (CLIP4Clip, section 3.3).

  The text is one vector. Position embeddings tell it from the frames, and the frames from each other. The score is a
  linear function of the first token after a dense layer with tanh.

  Attributes:
    config: the transformer. Its width is that of the embeddings.
    frames: largest number of frames.
  """

  config: TransformerConfig
  frames: int

  @nn.compact
  def __call__(
    self, frames: Float[Array, "frames width"], mask: Bool[Array, "frames"], texts: Float[Array, "texts width"]
  ) -> Float[Array, "texts"]:
    """Computes the scores of one video, in float32."""
    c, count = self.config, len(texts)
    init = embedding_init(c.init_scheme, c.width**-0.5, c.width)
    positions = self.param("position_embedding", init, (1 + self.frames, c.width), jnp.float32)
    shown = jnp.broadcast_to(frames[None].astype(texts.dtype), (count, *frames.shape))
    tokens = jnp.concatenate([texts[:, None], shown], axis=1) + positions[None, : 1 + len(frames)]
    readable = jnp.concatenate([jnp.ones((count, 1), bool), jnp.broadcast_to(mask[None], (count, len(mask)))], axis=1)
    _, first = Transformer(c, name="transformer")(tokens, readable)
    pooled: Any = TanhPool(c.dtype, c.init_scheme, name="tanh_pool")(first)
    return Dense(1, nn.initializers.normal(0.02), name="score_projection")(pooled.astype(jnp.float32))[:, 0]
