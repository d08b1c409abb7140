"""Configuration of a fusion, and the module that it describes."""

import dataclasses
from typing import Literal

import flax.linen as nn

from mmjax.fusion.bilinear import Bilinear
from mmjax.fusion.bottleneck import Bottleneck
from mmjax.fusion.compact import MCB
from mmjax.fusion.cross import CoAttention, CrossAttention
from mmjax.fusion.elementwise import Average, Concat, Product, Sum
from mmjax.fusion.gate import Gate
from mmjax.fusion.graph import GraphFusion
from mmjax.fusion.joint import EarlyFusion, MergedAttention
from mmjax.fusion.late import Late
from mmjax.fusion.low_rank import MFB, MUTAN
from mmjax.fusion.mlp import MLPFusion
from mmjax.fusion.tokens import PooledFusion
from mmjax.nn.transformer import TransformerConfig, refuse_block_options

FusionKind = Literal[
  "concat",
  "sum",
  "average",
  "late",
  "scalar_gate",
  "vector_gate",
  "product",
  "mlp",
  "bilinear",
  "mfb",
  "mutan",
  "mcb",
  "cross_attention",
  "co_attention",
  "merged_attention",
  "early",
  "bottleneck",
  "gcn",
  "gat",
]

_REFUSED = ("head_dim", "key_heads", "linear_bias", "rms_norm", "scaled_attention", "relative_buckets")
TRANSFORMERS: frozenset[FusionKind] = frozenset(
  ("cross_attention", "co_attention", "merged_attention", "early", "bottleneck")
)
"""Kinds that are stacks of blocks over the tokens."""

GRAPHS: frozenset[FusionKind] = frozenset(("gcn", "gat"))
"""Kinds that are graph networks over the tokens."""

_NOT_OF_GRAPHS = (
  *_REFUSED,
  "activation",
  "mlp_gated",
  "mlp_norm",
  "mlp_input_norm",
  "norm",
  "layer_scale",
  "input_norm",
)
_NOT_OF_GRAPHS += ("qk_norm", "attention_bias", "attention_norm", "drop_path", "scan", "remat", "attention_dropout")


@dataclasses.dataclass(frozen=True)
class FusionConfig(TransformerConfig):
  """Configuration of a fusion. Raises ValueError if the fields are inconsistent.

  Kinds that are transformers use the transformer's fields. Of these fields, gcn and gat use width, depth, num_heads
  (gat), norm_epsilon, dropout and dtype. The other kinds use only width (of the result), mlp_dim (mlp) and dtype.
  """

  kind: FusionKind = "merged_attention"
  """Fusion operator. With concat, sum, average and late, a linear head cannot combine features of two modalities; with
  scalar_gate it hardly can.
  """
  rank: int = 5
  """mfb, mutan: rank of each slice of the bilinear form (5 in both papers)."""
  sketch_seed: int = 0
  """mcb: random seed of the count sketches."""
  bottlenecks: int = 4
  """bottleneck: number of bottleneck tokens, through which the modalities exchange information (MBT: 4)."""
  own_edges: int = 4
  """gcn, gat: number of edges from each token to the most similar tokens of its modality."""
  cross_edges: int = 4
  """gcn, gat: number of edges from each token to the most similar tokens of each other modality. 0: no modality
  reads another."""

  def __post_init__(self) -> None:
    if self.kind in TRANSFORMERS:
      super().__post_init__()
      refuse_block_options(self, "a fusion", _REFUSED)
    if self.kind in GRAPHS:
      super().__post_init__()
      refuse_block_options(self, "a graph network", _NOT_OF_GRAPHS)
    for name in ("own_edges", "cross_edges"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name}={getattr(self, name)} must be at least 0")
    for name in ("rank", "bottlenecks"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
    if self.scan and self.kind in ("co_attention", "bottleneck"):
      raise ValueError(f"scan=True is not for kind={self.kind!r}, which has blocks for each modality: set scan=False")


def make_fusion(config: FusionConfig) -> nn.Module:
  """Makes the module of a configuration: (*encoded: Encoded, rng=None) -> Encoded.

  `pooled` of the result is the joint vector. Its tokens depend on the kind:

  * cross_attention: the tokens of the first modality.
  * co_attention, merged_attention, early, bottleneck, gcn, gat: the tokens of all modalities, which
    `mmjax.fusion.split` splits.
  * late: one token per modality.
  * other kinds: one token, equal to `pooled`.
  """
  c = config
  match c.kind:
    case "late":
      return Late(c.width, c.dtype)
    case "cross_attention":
      return CrossAttention(c)
    case "co_attention":
      return CoAttention(c)
    case "merged_attention":
      return MergedAttention(c)
    case "early":
      return EarlyFusion(c)
    case "bottleneck":
      return Bottleneck(c, c.bottlenecks)
    case "gcn" | "gat":
      return GraphFusion(c, c.own_edges, c.cross_edges, c.kind == "gat")
    case _:
      return PooledFusion(make_operator(c), c.dtype)


def make_operator(config: FusionConfig) -> nn.Module:
  """Makes the operator of a kind that reads one vector per modality: (*vectors [batch, width_i]) -> [batch, width].

  Raises:
    ValueError: the kind reads more than one vector per modality.
  """
  c = config
  match c.kind:
    case "concat":
      return Concat()
    case "sum":
      return Sum()
    case "average":
      return Average()
    case "product":
      return Product()
    case "scalar_gate" | "vector_gate":
      return Gate(c.width, c.kind == "vector_gate", c.dtype)
    case "mlp":
      return MLPFusion(c.hidden, c.width, c.dtype)
    case "bilinear":
      return Bilinear(c.width, c.dtype)
    case "mfb":
      return MFB(c.width, c.rank, c.dtype)
    case "mutan":
      return MUTAN(c.width, c.rank, c.dtype)
    case "mcb":
      return MCB(c.width, c.sketch_seed, c.dtype)
  raise ValueError(f"kind={c.kind!r} reads more than one vector per modality: use make_fusion")
