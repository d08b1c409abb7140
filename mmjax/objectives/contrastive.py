"""Image-text contrastive losses over the global batch: softmax (CLIP) and sigmoid (SigLIP)."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.features import Features, Scalar, TileSize, false_negative, hide, image_text, same_pair
from mmjax.objectives.pairwise import Pairwise, pairwise_loss
from mmjax.objectives.similarity import pair_similarity, similarity
from mmjax.parallel.ring import AxisName


def masked_logits(row: Features, col: Features) -> Array:
  """Scaled similarities, false negatives taken out."""
  return hide(similarity(row["x"], col["y"], row["scale"]), false_negative(row, col))


def _clip(stats: Features, row: Features, col: Features) -> Array:
  over_columns, over_rows = stats["logits"]
  return (over_columns + over_rows) / 2 - pair_similarity(row["x"], col["y"], row["scale"])


CLIP = Pairwise(lambda row, col: {"logits": masked_logits(row, col)}, {"logits": ("both", "lse")}, _clip)


def clip_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  *,
  logit_scale: Scalar,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
  ids: Int[Array, "batch"] | None = None,
  method: str = "ring",
) -> Float[Array, ""]:
  """Symmetric InfoNCE over the global batch (Radford et al. 2021, section 2.3; Oord et al. 2018, eq. 4).

  Args:
    image, text: unit-norm embeddings of the local pairs, float32, float64 or bfloat16.
    logit_scale: multiplies the similarities (already exponentiated), one for all or one per image.
    weights: importance of each pair in the mean; a pair of weight 0 is absent, also from the other pairs'
      negatives.
    axis_name: mesh axis or axes of the batch, inside shard_map or pmap; None: the arrays are the whole batch.
    tile_size: most rows and columns of the N x N matrix held at once, one number or two.
    ids: pairs with equal ids (duplicate captions, one concept) are not each other's negatives.
    method: how blocks travel, see pairwise_loss.
  Returns: the mean over the global batch in nats, log(batch) is chance; 0 where every pair is absent.
  Raises: ValueError for unequal shapes, an unbound axis, a tile below 1, a known non-positive scale.
  """
  rows, columns = image_text(image, text, logit_scale, weights, ids)
  return pairwise_loss(CLIP, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)


def wrong(row: Features, col: Features) -> Array:
  """How wrong each pair is: -z (s <x, y> + b), z = 1 at the positives and -1 elsewhere."""
  logits = similarity(row["x"], col["y"], row["scale"])
  logits = logits + row["bias"].astype(logits.dtype)[:, None]
  return jnp.where(same_pair(row, col), -logits, logits)


def counted(losses: Array, row: Features, col: Features) -> Array:
  """Pairs weigh w_i w_j: the column's weight here, the row's in the mean; false negatives do not count."""
  hidden = false_negative(row, col)
  losses = losses if hidden is None else jnp.where(hidden, 0, losses)
  return losses * col["weight"].astype(losses.dtype)[None, :] if "weight" in col else losses


def _siglip_tile(row: Features, col: Features) -> dict[str, Array]:
  return {"losses": counted(jax.nn.softplus(wrong(row, col)), row, col)}


SIGLIP = Pairwise(_siglip_tile, {"losses": ("row", "sum")}, lambda stats, row, col: stats["losses"], affine=True)


def siglip_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  *,
  logit_scale: Scalar,
  logit_bias: Scalar,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
  ids: Int[Array, "batch"] | None = None,
  method: str = "ring",
) -> Float[Array, ""]:
  """Sigmoid loss over all pairs of the global batch, summed over a row, averaged over rows (Zhai et al.
  2023, section 3.2).

  Args:
    image, text: unit-norm embeddings of the local pairs, float32, float64 or bfloat16.
    logit_scale, logit_bias: logits are scale <x, y> + bias (scale already exponentiated), one for all or one
      per image.
    weights: a pair (i, j) weighs w_i w_j, the sum is divided by sum w; weight 0 is absent.
    axis_name, tile_size, method: see clip_loss.
    ids: different examples with equal ids are neither positive nor negative.
  Returns: the mean over the global batch, in nats; 0 where every pair is absent.
  Raises: ValueError for unequal shapes, an unbound axis, a tile below 1, a known non-positive scale.
  """
  rows, columns = image_text(image, text, logit_scale, weights, ids, bias=logit_bias)
  return pairwise_loss(SIGLIP, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)
