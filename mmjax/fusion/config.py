"""Which fusion a model has, and the module for it."""

import dataclasses
from typing import Literal

import flax.linen as nn

from mmjax.fusion.bilinear import Bilinear
from mmjax.fusion.bottleneck import Bottleneck
from mmjax.fusion.compact import MCB
from mmjax.fusion.cross import CoAttention, CrossAttention
from mmjax.fusion.elementwise import Average, Concat, Product, Sum
from mmjax.fusion.gate import Gate
from mmjax.fusion.joint import EarlyFusion, MergedAttention
from mmjax.fusion.late import Late
from mmjax.fusion.low_rank import MFB, MUTAN
from mmjax.fusion.mlp import MLPFusion
from mmjax.fusion.tokens import PooledFusion
from mmjax.nn.transformer import TransformerConfig

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
]

TRANSFORMERS: frozenset[FusionKind] = frozenset(
  ("cross_attention", "co_attention", "merged_attention", "early", "bottleneck")
)
"""The kinds that read all tokens and not one vector per modality."""


@dataclasses.dataclass(frozen=True)
class FusionConfig(TransformerConfig):
  """How modalities become one. Raises ValueError where the fields do not fit each other.

  The transformer's fields belong to the kinds that are transformers; of them the other kinds use width (of the result),
  mlp_dim (mlp) and dtype.
  """

  kind: FusionKind = "merged_attention"
  """The operator. concat, sum, average and late cannot interact before a linear head; scalar_gate hardly."""
  rank: int = 5
  """mfb, mutan: rank of each slice of the bilinear form (both papers: 5)."""
  sketch_seed: int = 0
  """mcb: what the count sketches are drawn from."""
  bottlenecks: int = 4
  """bottleneck: tokens through which the modalities exchange what they know (MBT: 4)."""

  def __post_init__(self) -> None:
    if self.kind in TRANSFORMERS:
      super().__post_init__()
    for name in ("rank", "bottlenecks"):
      if getattr(self, name) < 1:
        raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
    if self.scan and self.kind in ("co_attention", "bottleneck"):
      raise ValueError(f"scan=True is not for kind={self.kind!r}, whose modalities take turns in every layer")


def make_fusion(config: FusionConfig) -> nn.Module:
  """The module of a configuration: (*encoded: Encoded, rng=None) -> Encoded.

  Kinds that read tokens give a token for each of theirs (`mmjax.fusion.split` takes them apart; cross_attention's are
  the first modality's); late gives one token per modality; the others one token. `pooled` is the joint vector.
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
    case _:
      return PooledFusion(make_operator(c), c.dtype)


def make_operator(config: FusionConfig) -> nn.Module:
  """The module (*vectors [batch, width_i]) -> [batch, width] of a kind that reads one vector per modality.

  Raises: ValueError for the kinds that read more than that.
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
