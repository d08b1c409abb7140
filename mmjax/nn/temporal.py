"""Encoders of the order of a clip's frames, which stand between a frame encoder and the mean over frames."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from mmjax.nn.initial import embedding_init
from mmjax.nn.stochastic import Rngs
from mmjax.nn.transformer import Transformer, TransformerConfig

Temporal = Literal["mean", "lstm", "transformer"]


class TemporalEncoder(nn.Module):
  """Adds to the vector of each frame what the frames around it say (CLIP4Clip, Luo et al. 2022, section 3.3).

  "mean": nothing. "lstm": the output of one LSTM layer (seqLSTM), which reads earlier frames. "transformer": that of a
  transformer without a norm after its blocks, on frames with position embeddings (seqTransf).

  Parameters: lstm/cell, or position_embedding and transformer.

  Attributes:
    kind: the encoder.
    config: the transformer. Its width is that of the frames.
    frames: largest number of frames.
  """

  kind: Temporal
  config: TransformerConfig
  frames: int

  @nn.compact
  def __call__(
    self, x: Float[Array, "batch frames width"], mask: Bool[Array, "batch frames"], *, rng: Rngs = None
  ) -> Float[Array, "batch frames width"]:
    """Encodes vectors of frames.

    Args:
      x: vectors of the frames.
      mask: True for frames of the clip, which come first; False for padding.
      rng: one key per example for dropout. None: evaluation.
    """
    c = self.config
    if self.kind == "lstm":
      outputs: Any = nn.RNN(nn.OptimizedLSTMCell(c.width, dtype=jnp.dtype(c.dtype), parent=None), name="lstm")(x)
      return x + outputs
    if self.kind == "transformer":
      init = embedding_init(c.init_scheme, c.width**-0.5, c.width)
      positions = self.param("position_embedding", init, (self.frames, c.width), jnp.float32)
      placed = x + positions[None, : x.shape[1]].astype(x.dtype)
      return x + Transformer(c, last_norm=False, name="transformer")(placed, mask, rng=rng)[0].astype(x.dtype)
    return x
