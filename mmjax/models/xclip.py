"""X-CLIP in the form of transformers' published models: videos and texts (Ni et al. 2022)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.encoders.text import TextConfig, TextTransformer
from mmjax.encoders.video import frame_mask
from mmjax.encoders.vit import ViT, ViTConfig
from mmjax.models.clip4clip import VIDEO
from mmjax.models.comparing import clamped_scale, clipped_scale
from mmjax.models.config import ModelConfig
from mmjax.nn.attention import MultiHeadAttention
from mmjax.nn.dense import Dense
from mmjax.nn.initial import kernel_init
from mmjax.nn.mlp import MLP
from mmjax.nn.norm import LayerNorm, normalize
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import Block, Transformer, TransformerConfig, block_attention, norm_layer
from mmjax.types import Batch, Encoded

_CLIP: dict[str, Any] = dict(activation="quick_gelu", norm_epsilon=1e-5)
_IMAGE = ViTConfig(patch_size=32, pool="cls", input_norm=True, class_position=True, stem_bias=False, **_CLIP)
_FIXED = ("pool", "input_norm", "class_position", "norm", "stem", "positions", "rotary", "registers", "patch_dropout")


@dataclasses.dataclass(frozen=True)
class XClipConfig(ModelConfig):
  """An encoder of frames that exchange messages, an encoder of texts, and prompts that a video adds to a text.

  Raises ValueError if the fields are inconsistent.
  """

  image: ViTConfig = _IMAGE
  """The encoder of frames."""
  text: TextConfig = TextConfig(width=512, num_heads=8, pool="argmax", mask_padding=False, **_CLIP)
  """The encoder of texts."""
  order: TransformerConfig = TransformerConfig(width=512, depth=1, num_heads=8, **_CLIP)
  """Transformer over the frames' vectors. Its width is that of the embeddings."""
  frames: int = 8
  """Frames of a clip (Video.frames)."""
  prompt_depth: int = 2
  """Blocks in which a text reads the patches of a video."""
  prompt_heads: int = 8
  """Attention heads of these blocks; must divide order.width."""
  prompt_activation: Literal["gelu", "gelu_tanh", "quick_gelu", "silu", "relu"] = "quick_gelu"
  """Activation of these blocks, as in TransformerConfig.activation."""
  prompt_scale: float = 0.1
  """Initial value of the learned factors of what they add to a text."""
  init_logit_scale: float = 1 / 0.07
  """Initial value of the learned factor of the similarities."""
  max_logit_scale: float = 100.0
  """Upper limit of the learned factor. The parameter is clamped to it after each step; inf: no limit."""

  def __post_init__(self) -> None:
    for name in _FIXED:
      value, only = getattr(self.image, name), getattr(_IMAGE, name)
      if value != only:
        raise ValueError(f"image.{name}={value!r} is not an option of X-CLIP, which supports only {only!r}")
    if self.frames < 1 or self.prompt_depth < 1:
      raise ValueError(f"frames={self.frames} and prompt_depth={self.prompt_depth} must be at least 1")
    if self.order.width % self.prompt_heads:
      raise ValueError(f"order.width={self.order.width} must be divisible by prompt_heads={self.prompt_heads}")

  @property
  def embed_dim(self) -> int:
    """Dimension of the embeddings."""
    return self.order.width

  def clamped(self, params: Any) -> Any:
    return clamped_scale(params, self.max_logit_scale)

  def example(self, batch_size: int) -> dict[str, Array]:
    frames = jnp.repeat(self.image.example(batch_size)[:, None], self.frames, axis=1)
    return {VIDEO: frames, "text": self.text.example(batch_size)}

  def build(self) -> nn.Module:
    return XClip(self)


class CrossFrameViT(ViT):
  """Vision transformer of frames. In each block, the class tokens of a clip's frames exchange messages.

  Parameters: those of the embeddings of a ViT, input_norm, norm, block_N and message_N.
  """

  @nn.compact
  def __call__(  # type: ignore[override]
    self, frames: Float[Array, "batch frames height width 3"], mask: Bool[Array, "batch frames"], *, rng: Rngs = None
  ) -> tuple[Float[Array, "batch frames patches dim"], Float[Array, "batch frames dim"]]:
    """Encodes clips.

    Args:
      frames: normalised frames.
      mask: True for the frames of a clip, False for its padding.
      rng: one key per clip for dropout and stochastic depth; None: evaluation.
    Returns: (patches without the last norm, class tokens with it).
    """
    c, (batch, count) = self.config, frames.shape[:2]
    x = self._embed(rearrange(frames, "b t h w c -> (b t) h w c"), None, training=rng is not None)
    first = jnp.broadcast_to(self._first()[None].astype(x.dtype), (x.shape[0], 1, c.width))
    x = norm_layer(c, "input_norm")(jnp.concatenate([first, x], axis=1).astype(c.dtype))
    length, keys = x.shape[1], None if rng is None else jnp.repeat(rng, count, axis=0)  # frames alike
    for layer in range(c.depth):
      words = rearrange(x[:, 0], "(b t) d -> b t d", t=count)
      message = Message(c, name=f"message_{layer}")(words, mask)
      x = jnp.concatenate([x, rearrange(message, "b t d -> (b t) 1 d")], axis=1)
      block = Block(c, False, length + 1, name=f"block_{layer}")
      x = block(rearrange(x, "n l d -> (n l) d"), None, keys, jnp.asarray(layer))
      x = rearrange(x, "(n l) d -> n l d", l=length + 1)[:, :length]
    each = rearrange(x, "(b t) l d -> b t l d", b=batch)
    return each[:, :, 1:], norm_layer(c, "norm")(each[:, :, 0])


class Message(nn.Module):
  """Messages of frames, which attend to each other. Parameters: projection, norm, attention."""

  config: TransformerConfig

  @nn.compact
  def __call__(
    self, words: Float[Array, "batch frames width"], mask: Bool[Array, "batch frames"]
  ) -> Float[Array, "batch frames width"]:
    c = self.config
    init = kernel_init(c.init_scheme, c.width**-0.5)
    x = Dense(c.width, init, dtype=c.dtype, name="projection")(words)
    attention = MultiHeadAttention(**block_attention(c, init), name="attention")
    return x + attention(norm_layer(c, "norm")(x), mask=mask)


class Prompt(nn.Module):
  """Block in which texts read the patches of a video. Parameters: norm1, attention, norm2, mlp."""

  config: XClipConfig

  @nn.compact
  def __call__(
    self, texts: Float[Array, "batch texts dim"], patches: Float[Array, "batch patches dim"]
  ) -> Float[Array, "batch texts dim"]:
    c, order, epsilon = self.config, self.config.order, self.config.text.norm_epsilon
    init = kernel_init(order.init_scheme, order.width**-0.5)
    fields = block_attention(order, init) | dict(num_heads=c.prompt_heads, biased="none", epsilon=epsilon)
    attention = MultiHeadAttention(**fields, name="attention")
    texts = texts + attention(LayerNorm(epsilon, name="norm1")(texts), patches)
    mlp = MLP(4 * order.width, c.prompt_activation, init, order.dtype, order.init_scheme, name="mlp")
    return texts + mlp(LayerNorm(epsilon, name="norm2")(texts))


class XClip(nn.Module):
  """transformers' XCLIPModel.

  Parameters: image, text; image_projection, text_projection (kernels); order_position_embedding and order; patch_norm
  and patch_projection; prompt_norm, prompts_N and prompt_scale; logit_scale (its logarithm).
  """

  config: XClipConfig

  def setup(self) -> None:
    c, dim = self.config, self.config.embed_dim
    self.image, self.text = CrossFrameViT(c.image), TextTransformer(c.text)
    project = lambda width: Dense(dim, nn.initializers.normal(width**-0.5), use_bias=False)
    self.image_projection, self.text_projection = project(c.image.width), project(c.text.width)
    init = nn.initializers.normal(0.02)
    self.order_positions = self.param("order_position_embedding", init, (c.frames, dim), jnp.float32)
    self.order = Transformer(c.order, last_norm=False)
    self.patch_norm, self.patch_projection = LayerNorm(c.image.norm_epsilon), project(c.image.width)
    self.prompt_norm, self.prompts = LayerNorm(c.image.norm_epsilon), [Prompt(c) for _ in range(c.prompt_depth)]
    self.prompt_factor = self.param("prompt_scale", nn.initializers.constant(c.prompt_scale), (dim,), jnp.float32)
    start = nn.initializers.constant(math.log(c.init_logit_scale))
    self.log_scale = self.param("logit_scale", start, ())

  def encode(self, batch: Batch, *, rng: Rngs = None) -> dict[str, Encoded]:
    """Encodes the videos and texts of the batch.

    Tokens of "video" are its patches at the dimension of the embeddings, averaged over the frames, and `pooled` is its
    embedding, not yet unit-norm. Frames of PADDED (mmjax.data.columns.video) are left out.

    Raises: ValueError: clips do not have the frames of the configuration.
    """
    encoded = {}
    if VIDEO in batch:
      encoded[VIDEO] = self._video(batch[VIDEO], fold_in(rng, 0))
    if "text" in batch:
      encoded["text"] = self.text(batch["text"], rng=fold_in(rng, 1))
    return encoded

  def embedding(self, name: str, encoded: Encoded) -> Float[Array, "batch dim"]:
    """Embedding of an encoding, in float32 and not unit-norm. That of a text has read no video."""
    pooled = encoded.pooled.astype(jnp.float32)
    return pooled if name == VIDEO else self.text_projection(pooled)

  def project(self, encoded: Mapping[str, Encoded]) -> dict[str, Float[Array, "_ dim"]]:
    """Unit-norm float32 embeddings of the results of `encode`, by the same names."""
    return {name: normalize(self.embedding(name, e)) for name, e in encoded.items()}

  def pair_scores(
    self, encoded: Mapping[str, Encoded], texts: Float[Array, "batch candidates width"]
  ) -> Float[Array, "batch candidates"]:
    """Logits of each video with some texts, to each of which the video adds its prompts.

    Args:
      encoded: encodings; those of "video" are read.
      texts: for each video, the pooled vectors of its candidates (Encoded.pooled of "text").
    """
    video = encoded[VIDEO]
    words = self.text_projection(texts.astype(jnp.float32))
    prompts, patches = words, self.prompt_norm(video.tokens)
    for block in self.prompts:
      prompts = block(prompts, patches)
    words = normalize(words + self.prompt_factor[None, None] * prompts.astype(jnp.float32))
    return self.logit_scale() * jnp.einsum("bd,bkd->bk", self.project({VIDEO: video})[VIDEO], words)

  @nn.jit
  def encode_video(self, frames: Float[Array, "batch frames height width 3"]) -> Float[Array, "batch dim"]:
    """Embeddings of clips of normalised frames. They are float32 and not unit-norm."""
    return self.embedding(VIDEO, self.encode({VIDEO: frames})[VIDEO])

  @nn.jit
  def encode_text(self, ids: Int[Array, "batch length"]) -> Float[Array, "batch dim"]:
    """Embeddings of token ids, which have read no video. They are float32 and not unit-norm."""
    return self.embedding("text", self.encode({"text": ids})["text"])

  def logit_scale(self) -> Float[Array, ""]:
    """Factor of the similarities, at most max_logit_scale."""
    return clipped_scale(self.log_scale, self.config.max_logit_scale)

  def logit_bias(self) -> Float[Array, ""]:
    """Bias of the logits: 0."""
    return jnp.zeros((), jnp.float32)

  def __call__(self, batch: Batch) -> dict[str, Array]:
    """Runs every part of the model. Returns the unit-norm embeddings, and the logits of all videos and texts."""
    encoded = self.encode(batch)
    pooled = encoded["text"].pooled
    texts = jnp.broadcast_to(pooled[None], (len(encoded[VIDEO].pooled), *pooled.shape))
    return {**self.project(encoded), "scores": self.pair_scores(encoded, texts)}

  def _video(self, frames: Float[Array, "batch frames height width 3"], rng: Rngs) -> Encoded:
    c = self.config
    if frames.shape[1] != c.frames:
      raise ValueError(f"clips have {frames.shape[1]} frames, but frames={c.frames}")
    mask = frame_mask(frames)
    images = jnp.where(mask[:, :, None, None, None], frames, 0.0)
    patches, words = self.image(images, mask, rng=fold_in(rng, 0))
    vectors = self.image_projection(words)
    ordered, _ = self.order(vectors + self.order_positions[None].astype(vectors.dtype), mask, rng=fold_in(rng, 1))
    pooled = mean_pool(ordered + vectors, mask)
    projected = self.patch_projection(self.patch_norm(patches))
    each = rearrange(projected, "b t p d -> (b p) t d")
    tokens = mean_pool(each, jnp.repeat(mask, projected.shape[2], axis=0))
    tokens = rearrange(tokens, "(b p) d -> b p d", b=len(frames))
    return Encoded(tokens, jnp.ones(tokens.shape[:2], bool), pooled)
