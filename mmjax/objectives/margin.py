"""Margin objectives: a pair should score higher than its negatives by some margin."""

import jax
from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.features import Features, TileSize, false_negative, hide, image_text, same_pair
from mmjax.objectives.pairwise import Pairwise, pairwise_loss
from mmjax.objectives.similarity import pair_similarity, similarity
from mmjax.parallel.ring import AxisName


def _hinge_tile(row: Features, col: Features) -> dict[str, Array]:
  negatives = hide(hide(similarity(row["x"], col["y"]), same_pair(row, col)), false_negative(row, col))
  negatives = negatives + row["margin"].astype(negatives.dtype)[:, None]
  return {
    "images": jax.nn.relu(negatives - row["pair"].astype(negatives.dtype)[:, None]),
    "texts": jax.nn.relu(negatives - col["pair"].astype(negatives.dtype)[None, :]),
  }


HINGE = Pairwise(
  _hinge_tile,
  {"images": ("row", "sum"), "texts": ("col", "sum")},
  lambda stats, row, col: stats["images"] + stats["texts"],
  affine=True,
)


def hinge_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  *,
  margin: float = 0.2,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
  ids: Int[Array, "batch"] | None = None,
  method: str = "ring",
) -> Float[Array, ""]:
  """Sum of hinges over all negatives, both ways, mean over pairs (Kiros et al. 2014, section 2.2).

  Arguments as for clip_loss, without a temperature. Returns: the mean over the global batch.
  """
  rows, columns = image_text(image, text, 1.0, weights, ids, margin=margin)
  rows["pair"] = columns["pair"] = pair_similarity(image, text)
  return pairwise_loss(HINGE, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)


def _triplet(stats: Features, row: Features, col: Features) -> Array:
  pair = pair_similarity(row["x"], col["y"], row["scale"])
  hinges = [jax.nn.relu(row["margin"] + hardest - pair) for hardest in stats["negatives"]]
  return hinges[0] + hinges[1]


TRIPLET = Pairwise(
  lambda row, col: {
    "negatives": hide(hide(similarity(row["x"], col["y"]), same_pair(row, col)), false_negative(row, col))
  },
  {"negatives": ("both", "max")},
  _triplet,
)


def triplet_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  *,
  margin: float = 0.2,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
  ids: Int[Array, "batch"] | None = None,
  method: str = "ring",
) -> Float[Array, ""]:
  """Hinge against the hardest negative of the global batch, both ways (Faghri et al. 2018, VSE++, MH).

  Arguments as for clip_loss, without a temperature. Returns: the mean over the global batch.
  """
  rows, columns = image_text(image, text, 1.0, weights, ids, margin=margin)
  return pairwise_loss(TRIPLET, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)
