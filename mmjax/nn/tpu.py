"""What code for TPUs alone has in common: when it runs, how arrays lie, what a hand-written kernel says of itself."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float

ROWS, LANES = 8, 128  # of a tile


def on_tpu() -> bool:
  """Whether a TPU's own arrays are traced (inside shard_map): the partitioner could not split a kernel by itself."""
  mesh = jax.sharding.get_abstract_mesh()
  return bool(mesh.manual_axes) and mesh.abstract_device is not None and mesh.abstract_device.platform == "tpu"


def rows_major(x: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
  """On a TPU, `x` in the order in which products and kernels read it; left alone, the compiler may turn it round."""
  return with_layout_constraint(x, Layout(major_to_minor=(0, 1))) if on_tpu() else x


def like(x: Array, *shape: int) -> jax.ShapeDtypeStruct:
  """A kernel's result of that shape, of x's dtype, which varies over the same mesh axes."""
  return jax.ShapeDtypeStruct(shape, x.dtype, manual_axis_type=jax.typeof(x).manual_axis_type)


def first_rows(x: Float[Array, "rows width"], count: int | Array) -> Float[Array, "rows width"]:
  """`x` with zeros from row `count` on: a program's block may reach beyond the array, where anything may be read."""
  return jnp.where(lax.broadcasted_iota(jnp.int32, x.shape, 0) < count, x, jnp.zeros((), x.dtype))


def kernel_metadata(*, flops: int, programs: int) -> dict[str, str]:
  """What `plan` reads of a kernel: the compiler estimates no time for it, but schedules the program it runs so often.

  A `cost_estimate` would tell the FLOPs too, but has the compiler keep fewer arrays on the chip (10% of a step). Equal
  names must mean equal programs.
  """
  return {"flops": str(flops), "programs": str(programs)}
