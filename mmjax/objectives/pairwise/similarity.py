"""Scaled inner products of a tile, fast and accurate in every precision."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def similarity(
  x: Float[Array, "rows dim"], y: Float[Array, "columns dim"], scale: Float[Array, "rows"] | None = None
) -> Float[Array, "rows columns"]:
  """scale_i <x_i, y_j> in float32 (float64 for float64 features). With scale=None, x is already scaled.

  Low-precision features are multiplied unscaled and accumulated in float32, because scaling them first would round them
  again. In float32 the scale is applied to the rows: `dim` products per row instead of `columns`.
  """
  if jnp.finfo(x.dtype).bits < 32:
    products = _low_precision(x, y)
    return products if scale is None else products * scale.astype(products.dtype)[:, None]
  return jnp.matmul(x if scale is None else x * scale.astype(x.dtype)[:, None], y.T)


def pair_similarity(
  x: Float[Array, "batch dim"], y: Float[Array, "batch dim"], scale: Float[Array, "batch"] | None = None
) -> Float[Array, "batch"]:
  """scale_i <x_i, y_i>, the similarities of positives, as a dot product with float32 accumulation.

  A bfloat16 sum would change the loss by 1e-3.
  """
  products = jnp.einsum("bd,bd->b", x, y, preferred_element_type=accumulator(x.dtype))
  return products if scale is None else products * scale.astype(products.dtype)


def accumulator(*dtypes: Any) -> Any:
  """dtype of statistics and sums: float64 if any input is float64, otherwise float32, also under strict promotion."""
  return jnp.dtype("float64" if any(jnp.dtype(dtype) == "float64" for dtype in dtypes) else "float32")


@jax.custom_vjp
def _low_precision(x: Array, y: Array) -> Array:
  return jnp.dot(x, y.T, preferred_element_type=jnp.float32)


def _low_precision_backward(saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
  """Products in the precision of the features. Autodiff would convert them to float32."""
  x, y = saved
  g = g.astype(x.dtype)
  dx = jnp.dot(g, y, preferred_element_type=jnp.float32)
  dy = jnp.dot(g.T, x, preferred_element_type=jnp.float32)
  return dx.astype(x.dtype), dy.astype(y.dtype)


_low_precision.defvjp(lambda x, y: (_low_precision(x, y), (x, y)), _low_precision_backward)
