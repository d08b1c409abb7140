"""Encoders and heads under a system's own name."""

from mmjax.models.sharding import SHARDING_RULES
from mmjax.models.two_tower import TwoTower, TwoTowerConfig

__all__ = ["SHARDING_RULES", "TwoTower", "TwoTowerConfig"]
