"""Fusion by cross-attention: the first modality attends to the others, or each modality attends to all others."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.fusion.tokens import check_width, first_streams, join, mean_of_firsts, with_tokens
from mmjax.nn.decoder import Decoder, DecoderBlock, Reading
from mmjax.nn.norm import LayerNorm
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import TransformerConfig, rematerialised
from mmjax.types import Encoded


class CrossAttention(nn.Module):
  """The first modality attends to itself and, by cross-attention, to the others (Li et al. 2021, ALBEF, section 3.1).

  Tokens and mask of the result are those of the first modality (in ALBEF the text), and `pooled` is its first token.
  The tokens of the other modalities must have one common width, which may differ from the configuration's.
  """

  config: TransformerConfig

  @nn.compact
  def __call__(self, reader: Encoded, *others: Encoded, rng: Rngs = None) -> Encoded:
    """Fuses `reader` with the other modalities."""
    c = self.config
    check_width([reader], c.width)
    read, mask = join(others, c.dtype)
    context = Encoded(read, mask, read[:, 0])
    tokens, _ = Decoder(c, name="decoder")(reader.tokens, reader.mask, context, causal=False, rng=rng)
    return Encoded(tokens, reader.mask, tokens[:, 0])


class CoAttention(nn.Module):
  """Co-attention: in each layer, every modality attends to itself and then to all others (Dou et al. 2022, METER).

  Each modality has its own blocks of self-attention, cross-attention and MLP (section 3.2; the idea is from Lu et al.
  2019, ViLBERT). Cross-attention reads the other modalities' tokens from the layer before. The number of modalities is
  arbitrary, and all must have the configuration's width. The result holds their tokens in the order of the modalities.
  `pooled` is the average of their first tokens.
  """

  config: TransformerConfig

  @nn.compact
  def __call__(self, *encoded: Encoded, rng: Rngs = None) -> Encoded:
    c = self.config
    check_width(encoded, c.width)
    block = rematerialised(DecoderBlock, c.remat, scan=False)
    streams = first_streams(encoded, c, rng)
    for layer in range(c.depth):
      before = list(streams)
      for i, e in enumerate(before):
        reading = Reading(e.mask, *join(before[:i] + before[i + 1 :], c.dtype))
        think = block(c, causal=False, separate_causal=False, name=f"input_{i}_block_{layer}")
        streams[i] = with_tokens(e, think(e.tokens, reading, fold_in(rng, i), jnp.asarray(layer))[0])
    if c.norm != "post":
      streams = [
        with_tokens(e, LayerNorm(c.norm_epsilon, name=f"input_{i}_norm")(e.tokens)) for i, e in enumerate(streams)
      ]
    tokens, mask = join(streams, c.dtype)
    return Encoded(tokens, mask, mean_of_firsts(streams))
