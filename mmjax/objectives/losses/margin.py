"""Margin losses: a pair should score higher than its negatives by a margin."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.losses.inputs import Features, TileSize, false_negative, hide, image_text, same_pair
from mmjax.objectives.pairwise.engine import Pairwise, pairwise_loss
from mmjax.objectives.pairwise.reductions import EMPTY
from mmjax.objectives.pairwise.similarity import pair_similarity, similarity
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
  """Sum of hinges over all negatives, in both directions, averaged over pairs (Kiros et al. 2014, section 2.2).

  There is no temperature. The other arguments are those of `clip_loss`.

  Args:
    image: unit-norm image embeddings of the local pairs.
    text: unit-norm text embeddings of the local pairs.
    margin: required difference between the similarity of a pair and of a negative.
  Returns: the mean over the global batch.
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
  """Hinge against the hardest negative of the global batch, in both directions (Faghri et al. 2018, VSE++, MH).

  There is no temperature. The other arguments are those of `clip_loss`.

  Args:
    image: unit-norm image embeddings of the local pairs.
    text: unit-norm text embeddings of the local pairs.
    margin: required difference between the similarity of a pair and of its hardest negative.
  Returns: the mean over the global batch.
  """
  rows, columns = image_text(image, text, 1.0, weights, ids, margin=margin)
  return pairwise_loss(TRIPLET, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)


def _semi_hard_tile(row: Features, col: Features) -> dict[str, Array]:
  scores = similarity(row["x"], col["y"])
  negatives = hide(hide(scores, same_pair(row, col)), false_negative(row, col))
  limit = lambda pair, slack: pair.astype(scores.dtype) + slack.astype(scores.dtype)
  return {
    "images": hide(negatives, scores > limit(row["pair"], row["slack"])[:, None]),
    "texts": hide(negatives, scores > limit(col["pair"], col["slack"])[None, :]),
    "easiest": jnp.where(jnp.isneginf(negatives), -jnp.inf, -scores),
  }


def _semi_hard(stats: Features, row: Features, col: Features) -> Array:
  pair = pair_similarity(row["x"], col["y"])
  total = jnp.zeros_like(pair)
  for hardest, easiest in zip((stats["images"], stats["texts"]), stats["easiest"], strict=True):
    any_, admitted = easiest > EMPTY / 2, hardest > EMPTY / 2
    negative = jnp.where(admitted, hardest, jnp.where(any_, -easiest, EMPTY))
    total = total + jax.nn.relu(row["margin"] + negative - pair)
  return total


SEMI_HARD = Pairwise(
  _semi_hard_tile, {"images": ("row", "max"), "texts": ("col", "max"), "easiest": ("both", "max")}, _semi_hard
)


def semi_hard_triplet_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  *,
  margin: float = 0.2,
  slack: float | Float[Array, ""] = 0.0,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
  ids: Int[Array, "batch"] | None = None,
  method: str = "ring",
) -> Float[Array, ""]:
  """Hinge against the hardest negative that does not score higher than the pair itself, in both directions.

  Source: FaceNet (Schroff et al. 2015, section 3.2). Training on the hardest negatives from the start tends to
  collapse. Start with this loss and change to `triplet_loss`, either by the weights of the two losses or by `slack`.

  There is no temperature. The other arguments are those of `clip_loss`.

  Args:
    image: unit-norm image embeddings of the local pairs.
    text: unit-norm text embeddings of the local pairs.
    margin: required difference between the similarity of a pair and of its negative.
    slack: amount by which a negative may score higher than the pair, from 0 (semi-hard) to 2 (all negatives: equal to
      triplet_loss). It may be traced, so a schedule can set it. If no negative is admitted, the easiest one is used.
  Returns: the mean over the global batch.
  """
  rows, columns = image_text(image, text, 1.0, weights, ids, margin=margin, slack=slack)
  rows["pair"] = columns["pair"] = jax.lax.stop_gradient(pair_similarity(image, text))
  columns["slack"] = rows["slack"]
  return pairwise_loss(SEMI_HARD, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)
