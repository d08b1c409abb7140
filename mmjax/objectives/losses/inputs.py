"""Helpers of the image-text objectives: checked inputs, positives and false negatives."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.objectives.pairwise.similarity import accumulator

Features = Mapping[str, Any]
Scalar = Float[Array, ""] | Float[Array, "batch"] | float
TileSize = int | tuple[int, int] | None


def image_text(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  logit_scale: Scalar,
  weights: Float[Array, "batch"] | None = None,
  ids: Int[Array, "batch"] | None = None,
  **scalars: Scalar,
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Features of n pairs for the pairwise engine: (row features x, scale, ..., column features y, ...).

  The scale is multiplied into x here, once, and "scale" is None. In low precision this would round x again, so "scale"
  is kept for the tiles to apply.

  Args:
    image: image embeddings, which become the rows' x.
    text: text embeddings, which become the columns' y.
    logit_scale: multiplies the similarities; one for all or one per image.
    weights: importance of each pair; goes to both sides as "weight".
    ids: numbers of the pairs' concepts; go to both sides as "id".
    **scalars: further features of the rows.
  Raises:
    ValueError: the embeddings differ in shape or dtype, weights or ids have another length, or the scale is concrete
      and not positive. A traced scale cannot be checked; the losses are finite for any finite scale.
  """
  image, text = jnp.asarray(image), jnp.asarray(text)
  if image.ndim != 2 or image.shape != text.shape:
    raise ValueError(f"image and text must both be [batch, dim], got {image.shape} and {text.shape}")
  if image.dtype != text.dtype:
    raise ValueError(f"image is {image.dtype} and text is {text.dtype}; cast one of them")
  positive("logit_scale", logit_scale)
  dtype = accumulator(image.dtype)
  scale = _number(logit_scale, dtype)
  folded = image.dtype == dtype
  row = (
    {"x": image * (scale[:, None] if scale.ndim else scale), "scale": None} if folded else {"x": image, "scale": scale}
  )
  row |= {name: _number(value, dtype) for name, value in scalars.items()}
  column: dict[str, Any] = {"y": text}
  for name, value in (("weight", weights), ("id", ids)):
    if value is None:
      continue
    if value.shape != image.shape[:1]:
      raise ValueError(f"{name} must have one entry per example, {image.shape[:1]}, got {value.shape}")
    value = value.astype(dtype) if name == "weight" else value
    row[name], column[name] = value, value
  return row, column


def positive(name: str, value: Any) -> None:
  """Raises ValueError if a temperature or scale is concrete (not traced) and not positive."""
  if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) > 0):
    raise ValueError(f"{name} must be positive (it multiplies the similarities, already exponentiated), got {value}")


def same_pair(row: Features, col: Features) -> Bool[Array, "rows columns"]:
  """True for positives: row i and column i of the global batch."""
  return row["index"][:, None] == col["index"][None, :]


def false_negative(row: Features, col: Features) -> Bool[Array, "rows columns"] | None:
  """True for two different examples with the same id, which are not negatives of each other; None without ids."""
  if "id" not in row:
    return None
  return (row["id"][:, None] == col["id"][None, :]) & ~same_pair(row, col)


def hide(logits: Array, pairs: Array | None) -> Array:
  """Sets pairs to -inf, which removes them from lse, softmean and max."""
  return logits if pairs is None else jnp.where(pairs, -jnp.inf, logits)


def _number(value: Any, dtype: Any) -> Array:
  return jnp.asarray(value).astype(dtype)
