"""Helpers for TPU-only code: platform test, layout, and metadata of kernels."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float

ROWS, LANES = 8, 128  # size of a tile


def on_tpu() -> bool:
  """True inside shard_map on a TPU.

  Kernels are used only there, because the partitioner cannot split a kernel by itself.
  """
  mesh = jax.sharding.get_abstract_mesh()
  return bool(mesh.manual_axes) and mesh.abstract_device is not None and mesh.abstract_device.platform == "tpu"


def rows_major(x: Float[Array, "rows width"]) -> Float[Array, "rows width"]:
  """On a TPU, `x` in row-major layout, as products and kernels read it. The compiler might otherwise transpose it."""
  return with_layout_constraint(x, Layout(major_to_minor=(0, 1))) if on_tpu() else x


def like(x: Array, *shape: int) -> jax.ShapeDtypeStruct:
  """Shape, dtype and mesh axes of a kernel's result: the given shape, and the dtype and varying axes of `x`."""
  return jax.ShapeDtypeStruct(shape, x.dtype, manual_axis_type=jax.typeof(x).manual_axis_type)


def first_rows(x: Float[Array, "rows width"], count: int | Array) -> Float[Array, "rows width"]:
  """`x` with zeros from row `count` on.

  A program's block may reach beyond the array, where reads return arbitrary values.
  """
  return jnp.where(lax.broadcasted_iota(jnp.int32, x.shape, 0) < count, x, jnp.zeros((), x.dtype))


def kernel_metadata(*, flops: int, programs: int) -> dict[str, str]:
  """Metadata of a kernel that `mmjax.plan` reads.

  The compiler gives no time estimate for a whole kernel. It does schedule one program, which runs `programs` times. A
  `cost_estimate` could also carry the FLOPs, but it makes the compiler keep fewer arrays on the chip, which costs 10%
  of a step. Kernels with the same name must have the same program.
  """
  return {"flops": str(flops), "programs": str(programs)}
