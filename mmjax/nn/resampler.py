"""Perceiver resampler: a fixed number of learned vectors reads any number of tokens (Jaegle et al. 2021)."""

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float

from mmjax.nn.attention import MultiHeadAttention
from mmjax.nn.dense import Dense
from mmjax.nn.initial import embedding_init, kernel_init
from mmjax.nn.transformer import TransformerConfig, block_attention, block_mlp, norm_layer


class ResamplerBlock(nn.Module):
  """Latents read the features and themselves, then an MLP follows; each with a norm before and a residual sum.

  Parameters: norm1 (of the latents), norm_context (of the features), attention, norm2, mlp.
  """

  config: TransformerConfig

  @nn.compact
  def __call__(
    self,
    latents: Float[Array, "batch latents width"],
    features: Float[Array, "batch length width"],
    mask: Bool[Array, "batch length"] | None,
  ) -> Float[Array, "batch latents width"]:
    c = self.config
    init = kernel_init(c.init_scheme, c.width**-0.5 * (2 * c.depth) ** -0.5)
    query = norm_layer(c, "norm1")(latents)
    read = jnp.concatenate([norm_layer(c, "norm_context")(features), query], axis=1)
    if mask is not None:
      mask = jnp.concatenate([mask, jnp.ones(latents.shape[:2], bool)], axis=1)
    latents = latents + MultiHeadAttention(**block_attention(c, init), name="attention")(query, read, mask=mask)
    return latents + block_mlp(c, init, "mlp")(norm_layer(c, "norm2")(latents))


class Resampler(nn.Module):
  """Perceiver resampler of Flamingo (Alayrac et al. 2022, section 2.1, figure 5).

  Keys and values are the features of an image or a video, and the latents themselves. A learned embedding of its time
  is added to the features of each frame. Features of another width are projected first.

  Parameters: latent_embedding, block_0, block_1, ..., norm; projection, where the widths differ; time_embedding, with
  frames > 1.

  Attributes:
    config: width, depth, heads and the like of the blocks.
    latents: number of latents.
    frames: largest number of frames.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> from mmjax.nn import TransformerConfig
    >>> model = Resampler(TransformerConfig(width=8, depth=1, num_heads=2), latents=3, frames=2)
    >>> frames = jnp.ones((1, 2, 5, 6))  # batch, frames, tokens of a frame, their width
    >>> model.init_with_output(jax.random.key(0), frames, None)[0].shape
    (1, 3, 8)
  """

  config: TransformerConfig
  latents: int
  frames: int = 1

  @nn.compact
  def __call__(
    self,
    features: Float[Array, "batch frames length feature_width"],
    mask: Bool[Array, "batch frames length"] | None,
  ) -> Float[Array, "batch latents width"]:
    """Reads the tokens of frames.

    Args:
      features: tokens of each frame.
      mask: True for each token that is real. None: all are.
    Returns: the latents after the last block, normalised.
    Raises: ValueError: there are more frames than time embeddings.
    """
    c, (batch, frames, _, feature_width) = self.config, features.shape
    if frames > self.frames:
      raise ValueError(f"there are {frames} frames, more than frames={self.frames}")
    init = embedding_init(c.init_scheme, 0.02, c.width)
    x = features.astype(c.dtype)
    if feature_width != c.width:
      x = Dense(c.width, kernel_init(c.init_scheme, feature_width**-0.5), dtype=c.dtype, name="projection")(x)
    if self.frames > 1:
      times = self.param("time_embedding", init, (self.frames, c.width), jnp.float32)
      x = x + times[None, :frames, None].astype(x.dtype)
    x = rearrange(x, "b t p d -> b (t p) d")
    flat = None if mask is None else rearrange(mask, "b t p -> b (t p)")
    table = self.param("latent_embedding", embedding_init(c.init_scheme, 1.0, c.width), (self.latents, c.width))
    latents = jnp.broadcast_to(table[None].astype(c.dtype), (batch, self.latents, c.width))
    for layer in range(c.depth):
      latents = ResamplerBlock(c, name=f"block_{layer}")(latents, x, flat)
    return norm_layer(c, "norm")(latents)
