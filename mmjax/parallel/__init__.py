"""Meshes, sharding rules and microbatching."""

from mmjax.parallel.microbatch import microbatch

__all__ = ["microbatch"]
