"""Fusion modules: each maps the `Encoded` of several modalities to one `Encoded`."""

from mmjax.fusion.bilinear import Bilinear
from mmjax.fusion.bottleneck import Bottleneck
from mmjax.fusion.compact import MCB, count_sketch, sketch_constants
from mmjax.fusion.config import FusionConfig, FusionKind, make_fusion, make_operator
from mmjax.fusion.cross import CoAttention, CrossAttention
from mmjax.fusion.elementwise import Average, Concat, Product, Sum
from mmjax.fusion.gate import Gate
from mmjax.fusion.graph import GraphFusion, similarity_edges
from mmjax.fusion.joint import EarlyFusion, JointTransformer, MergedAttention
from mmjax.fusion.late import Late
from mmjax.fusion.low_rank import MFB, MUTAN
from mmjax.fusion.mlp import MLPFusion
from mmjax.fusion.power import power_normalize, signed_sqrt
from mmjax.fusion.tokens import PooledFusion, join, split

__all__ = [
  "MCB",
  "MFB",
  "MUTAN",
  "Average",
  "Bilinear",
  "Bottleneck",
  "CoAttention",
  "Concat",
  "CrossAttention",
  "EarlyFusion",
  "FusionConfig",
  "FusionKind",
  "Gate",
  "GraphFusion",
  "JointTransformer",
  "Late",
  "MLPFusion",
  "MergedAttention",
  "PooledFusion",
  "Product",
  "Sum",
  "count_sketch",
  "join",
  "make_fusion",
  "make_operator",
  "power_normalize",
  "signed_sqrt",
  "similarity_edges",
  "sketch_constants",
  "split",
]
