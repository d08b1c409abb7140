"""Attention bottlenecks: modalities exchange information only through a few tokens."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float

from mmjax.fusion.tokens import check_width, first_streams, join, mean_of_firsts, present, with_tokens
from mmjax.nn.norm import LayerNorm
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import Block, TransformerConfig, rematerialised
from mmjax.types import Encoded


class Bottleneck(nn.Module):
  """Fusion layers of MBT (Nagrani et al. 2021, section 3.2.3, "fusion via attention bottlenecks").

  In each layer, every modality has its own block, which runs over the modality's tokens and the shared bottleneck
  tokens. The resulting bottleneck tokens are averaged over the modalities that the example has:

      [x_i, b_i] = block_i([x_i, b]),   b = mean over i of b_i

  A modality reads what another modality wrote in the layer before. With one layer, nothing is exchanged. `pooled` is
  the average of the modalities' first tokens. MBT's lower layers, without fusion, are the encoders.

  Attributes:
    config: configuration of the blocks; each modality's tokens must have its width.
    num_tokens: number of bottleneck tokens (B in the paper, which uses 4).
  """

  config: TransformerConfig
  num_tokens: int

  @nn.compact
  def __call__(self, *encoded: Encoded, rng: Rngs = None) -> Encoded:
    c = self.config
    check_width(encoded, c.width)
    init = nn.initializers.normal(0.02)
    shared = self.param("bottleneck_tokens", init, (self.num_tokens, c.width), jnp.float32)
    bottleneck = jnp.broadcast_to(shared[None].astype(c.dtype), (encoded[0].mask.shape[0], *shared.shape))
    streams = first_streams(encoded, c, rng)
    for layer in range(c.depth):
      streams, bottleneck = self._layer(streams, bottleneck, rng, layer)
    if c.norm != "post":
      streams = [
        with_tokens(e, LayerNorm(c.norm_epsilon, name=f"input_{i}_norm")(e.tokens)) for i, e in enumerate(streams)
      ]
    tokens, mask = join(streams, c.dtype)
    return Encoded(tokens, mask, mean_of_firsts(streams))

  def _layer(
    self, streams: Sequence[Encoded], bottleneck: Float[Array, "batch b width"], rng: Rngs, layer: int
  ) -> tuple[list[Encoded], Float[Array, "batch b width"]]:
    read, passed = jnp.ones(bottleneck.shape[:2], bool), []
    for i, e in enumerate(streams):
      block = rematerialised(Block, self.config.remat, scan=False)
      row = jnp.concatenate([e.tokens, bottleneck], axis=1)
      mask = jnp.concatenate([e.mask, read], axis=1)
      think = block(self.config, causal=False, length=row.shape[1], name=f"input_{i}_block_{layer}")
      thought = think(rearrange(row, "b l w -> (b l) w"), mask, fold_in(rng, i), jnp.asarray(layer))
      passed.append(rearrange(thought, "(b l) w -> b l w", b=row.shape[0]))
    length = [e.mask.shape[1] for e in streams]
    written = jnp.stack([x[:, n:] for x, n in zip(passed, length, strict=True)], axis=1)
    after = [with_tokens(e, x[:, :n]) for e, x, n in zip(streams, passed, length, strict=True)]
    return after, _mean(written, present(streams))


def _mean(
  written: Float[Array, "batch modalities b width"], there: Bool[Array, "batch modalities"]
) -> Float[Array, "batch b width"]:
  flat = written.reshape(*written.shape[:2], -1)
  return mean_pool(flat, there).reshape(written.shape[0], *written.shape[2:])
