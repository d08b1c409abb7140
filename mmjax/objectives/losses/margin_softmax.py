"""Softmax over identities with a margin on the right one: ArcFace and CosFace."""

import math

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

_RIM = 1e-6
"""Cosines of the right identity are kept this far from -1 and 1, where the derivative of the angle is infinite."""


def arcface_cosines(
  cosines: Float[Array, "batch identities"], labels: Int[Array, "batch"], *, margin: float = 0.5
) -> Float[Array, "batch identities"]:
  """Add a margin to the angle of the right identity: cos(angle + margin) (Deng et al. 2019, ArcFace, eq. 3).

  Where angle + margin exceeds pi, cos(angle) - margin sin(margin) stands in its place, so that the result falls with
  the angle (the authors' implementation).

  Args:
    cosines: cosines of the embeddings and the vectors of the identities.
    labels: the right identities. They are clipped to the valid range.
    margin: angle in radians.
  Returns: the cosines, float32. Those of the wrong identities are unchanged.
  """
  cosines, right, labels = _right(cosines, labels)
  cosine = jnp.clip(right, -1 + _RIM, 1 - _RIM)
  sine = jnp.sqrt(1 - cosine**2)
  farther = cosine * math.cos(margin) - sine * math.sin(margin)
  changed = jnp.where(cosine > math.cos(math.pi - margin), farther, cosine - margin * math.sin(margin))
  return _with_right(cosines, labels, changed)


def cosface_cosines(
  cosines: Float[Array, "batch identities"], labels: Int[Array, "batch"], *, margin: float = 0.35
) -> Float[Array, "batch identities"]:
  """Subtract a margin from the cosine of the right identity (Wang et al. 2018, CosFace, eq. 4).

  Args:
    cosines: cosines of the embeddings and the vectors of the identities.
    labels: the right identities. They are clipped to the valid range.
    margin: difference of cosines.
  Returns: the cosines, float32. Those of the wrong identities are unchanged.
  """
  cosines, right, labels = _right(cosines, labels)
  return _with_right(cosines, labels, right - margin)


def _right(cosines: Array, labels: Array) -> tuple[Array, Array, Array]:
  """(cosines in float32, those of the right identities, labels in the valid range)."""
  cosines, labels = cosines.astype(jnp.float32), jnp.clip(labels, 0, cosines.shape[1] - 1)
  return cosines, jnp.take_along_axis(cosines, labels[:, None], axis=1)[:, 0], labels


def _with_right(cosines: Array, labels: Array, changed: Array) -> Array:
  right = jnp.arange(cosines.shape[1], dtype=labels.dtype)[None] == labels[:, None]
  return jnp.where(right, changed[:, None], cosines)
