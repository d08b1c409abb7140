"""Building blocks that all networks share."""

from mmjax.nn.attention import MultiHeadAttention, attention
from mmjax.nn.dense import Dense
from mmjax.nn.embeddings import ConvStem, PatchEmbed, sincos_1d, sincos_2d
from mmjax.nn.mlp import MLP
from mmjax.nn.norm import LayerNorm, layer_norm, normalize
from mmjax.nn.pooling import AttentionPool, TanhPool, eos_position, first_position, mean_pool
from mmjax.nn.stochastic import Rngs, fold_in
from mmjax.nn.transformer import Block, Transformer, TransformerConfig, take_token
from mmjax.nn.words import Words, WordsConfig

__all__ = [
  "MLP",
  "AttentionPool",
  "Block",
  "ConvStem",
  "Dense",
  "LayerNorm",
  "MultiHeadAttention",
  "PatchEmbed",
  "Rngs",
  "TanhPool",
  "Transformer",
  "TransformerConfig",
  "Words",
  "WordsConfig",
  "attention",
  "eos_position",
  "first_position",
  "fold_in",
  "layer_norm",
  "mean_pool",
  "normalize",
  "sincos_1d",
  "sincos_2d",
  "take_token",
]
