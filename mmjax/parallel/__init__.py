"""Device meshes, sharding rules and microbatching."""

from mmjax.parallel.mesh import ParallelConfig, make_mesh, put_batch
from mmjax.parallel.microbatch import microbatch

__all__ = ["ParallelConfig", "make_mesh", "microbatch", "put_batch"]
