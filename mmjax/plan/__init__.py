"""Compile for hardware one does not have: does it fit, how fast, how much traffic."""

from mmjax.plan.api import plan
from mmjax.plan.process import PlanError
from mmjax.plan.record import Change, Link, Memory, Plan
from mmjax.plan.search import Search, find
from mmjax.plan.topologies import TopologyError, known_topologies

__all__ = [
  "Change",
  "Link",
  "Memory",
  "Plan",
  "PlanError",
  "Search",
  "TopologyError",
  "find",
  "known_topologies",
  "plan",
]
