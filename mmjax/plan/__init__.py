"""Compile a training step for hardware that is not present, and report its memory, time, traffic and cost."""

from typing import TYPE_CHECKING

from mmjax.lazy import lazy_names

if TYPE_CHECKING:
  from mmjax.plan.api import plan
  from mmjax.plan.compilers import PlanError
  from mmjax.plan.result import Change, Link, Memory, Plan
  from mmjax.plan.search import Search, find
  from mmjax.plan.topologies import TopologyError, known_topologies
else:
  __getattr__, __dir__ = lazy_names(
    __name__,
    {
      "api": ["plan"],
      "compilers": ["PlanError"],
      "result": ["Change", "Link", "Memory", "Plan"],
      "search": ["Search", "find"],
      "topologies": ["TopologyError", "known_topologies"],
    },
  )

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
