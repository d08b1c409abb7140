"""Rotary position embedding: queries and keys turn by angles that grow with their position.

Feature j of a head and feature j + dim / 2 are a pair. For words, pair j turns by position * temperature^(-2 j / dim).
For patches, one half of the pairs follows the position along one axis, the other half that along the other axis. Pair j
of an axis turns by position * temperature^(-4 j / dim). The product of a query and a key then depends on the distance
of their words or patches.

Sources: RoFormer (Su et al. 2021); the axial form of EVA-02 (Fang et al. 2023), Heo et al. 2024 and DINOv3 (Simeoni et
al. 2025). EVA-02 pairs neighbouring features: reading its weights changes the order of the features in each head.
"""

from typing import Literal

import flax.struct
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

Axes = Literal["yx", "xy"]


@flax.struct.dataclass
class Rotation:
  """Cosine and sine of the angle of each pair of features, float32. A token with angle 0 is not rotated."""

  cos: Float[Array, "#batch length pairs"]
  sin: Float[Array, "#batch length pairs"]

  def at(self, position: int | Int[Array, "batch"]) -> "Rotation":
    """Rotation of one token of each example, at a position that may differ between examples."""
    if isinstance(position, int):
      return Rotation(self.cos[:, position : position + 1], self.sin[:, position : position + 1])
    rows = jnp.arange(position.shape[0]) if self.cos.shape[0] > 1 else jnp.zeros(position.shape, jnp.int32)
    return Rotation(self.cos[rows, position][:, None], self.sin[rows, position][:, None])


def rotation(angles: Float[Array, "#batch patches pairs"], *, prefix: int) -> Rotation:
  """Makes the rotation of tokens: `prefix` tokens that do not turn, such as a class token, and then the patches."""
  angles = jnp.pad(angles, ((0, 0), (prefix, 0), (0, 0)))
  return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(heads: Float[Array, "batch length heads dim"], by: Rotation) -> Float[Array, "batch length heads dim"]:
  """Rotates the pairs of features of queries or keys, in float32. The result has the dtype of `heads`."""
  first, second = jnp.split(heads.astype(jnp.float32), 2, axis=-1)
  cos, sin = by.cos[:, :, None], by.sin[:, :, None]
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(heads.dtype)


def word_rotation(length: int, dim: int, *, temperature: float, start: Int[Array, "batch"] | None = None) -> Rotation:
  """Makes the rotation of words.

  Args:
    length: number of words.
    dim: features of a head; must be divisible by 2.
    temperature: frequencies fall geometrically from 1 towards 1 / temperature.
    start: position of the first word of each row. None: 0.
  """
  places = jnp.arange(length, dtype=jnp.int32)[None]
  places = places if start is None else places + start[:, None]
  frequencies = jnp.asarray(temperature ** (-np.arange(0, dim, 2) / dim), jnp.float32)
  angles = places[:, :, None].astype(jnp.float32) * frequencies[None, None]
  return Rotation(jnp.cos(angles), jnp.sin(angles))


def patch_positions(count: int, *, stretched_to: int, start: float) -> Float[np.ndarray, "count"]:
  """Positions along one axis in patches: start, start + 1, ..., times stretched_to / count (EVA-02)."""
  return (np.arange(count) + start) * stretched_to / count


def centered_positions(count: int) -> Float[np.ndarray, "count"]:
  """Centres of the patches along one axis of an image that reaches from -2 pi to 2 pi (DINOv3)."""
  return 2 * np.pi * (2 * (np.arange(count) + 0.5) / count - 1)


def angles_2d(
  positions: Float[np.ndarray, "side"], dim: int, *, temperature: float, axes: Axes
) -> Float[Array, "patches pairs"]:
  """Angles of the pairs of features, for the patches of a square grid.

  Args:
    positions: positions of the rows, and of the columns.
    dim: features of a head; must be divisible by 4.
    temperature: frequencies fall geometrically from 1 towards 1 / temperature.
    axes: axis that the first dim / 4 pairs follow, and axis that the others follow.
  Returns: angles in radians, row by row.

  Example:
    >>> import numpy as np
    >>> from mmjax.nn.rotary import angles_2d
    >>> angles_2d(np.array([0.0, 1.0]), 4, temperature=100.0, axes="yx").tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
  """
  pairs = dim // 4
  angles = positions[:, None] * temperature ** (-np.arange(pairs) / pairs)
  side = len(positions)
  y = np.broadcast_to(angles[:, None], (side, side, pairs)).reshape(-1, pairs)
  x = np.broadcast_to(angles[None], (side, side, pairs)).reshape(-1, pairs)
  return jnp.asarray(np.concatenate([y, x] if axes == "yx" else [x, y], axis=1), jnp.float32)
