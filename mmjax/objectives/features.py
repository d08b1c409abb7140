"""What the image-text objectives have in common: checked inputs, and who is a negative of whom."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.objectives.similarity import accumulator

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
  """(row features x, scale, ..., column features y, ...) of n pairs; weights and ids go to both sides.

  The scale is multiplied into x here, once, and "scale" is None; in low precision, where that would round x again, it
  goes along for the tiles to apply.

  Raises: ValueError for embeddings of unequal shape or type, weights or ids of another length, a scale that
    is known to be non-positive (one that is traced cannot be looked at; the losses are finite for any finite
    scale).
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
  """Refuses a temperature or scale that is known, and not above zero."""
  if not isinstance(value, jax.core.Tracer) and not np.all(np.asarray(value) > 0):
    raise ValueError(f"{name} must be positive (it multiplies the similarities, already exponentiated), got {value}")


def same_pair(row: Features, col: Features) -> Bool[Array, "rows columns"]:
  """True at the positives: row i and column i of the global batch."""
  return row["index"][:, None] == col["index"][None, :]


def false_negative(row: Features, col: Features) -> Bool[Array, "rows columns"] | None:
  """True where two different examples have the same id, so that neither is a negative of the other; None
  without ids."""
  if "id" not in row:
    return None
  return (row["id"][:, None] == col["id"][None, :]) & ~same_pair(row, col)


def hide(logits: Array, pairs: Array | None) -> Array:
  """Takes pairs out of an lse, softmean or max."""
  return logits if pairs is None else jnp.where(pairs, -jnp.inf, logits)


def _number(value: Any, dtype: Any) -> Array:
  return jnp.asarray(value).astype(dtype)
