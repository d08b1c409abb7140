"""Image-text contrastive losses over the global batch: softmax (CLIP) and sigmoid (SigLIP)."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.losses.inputs import Features, Scalar, TileSize, false_negative, hide, image_text, same_pair
from mmjax.objectives.pairwise.engine import Pairwise, pairwise_loss
from mmjax.objectives.pairwise.similarity import pair_similarity, similarity
from mmjax.parallel.ring import AxisName


def masked_logits(row: Features, col: Features) -> Array:
  """Scaled similarities of a tile, with -inf at false negatives."""
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
    image: unit-norm image embeddings of the local pairs, float32, float64 or bfloat16.
    text: unit-norm text embeddings of the local pairs, of the same dtype.
    logit_scale: multiplies the similarities (already exponentiated); one for all or one per image.
    weights: importance of each pair in the mean. A pair of weight 0 is absent, also from the negatives of other pairs.
    axis_name: mesh axis or axes of the batch, inside shard_map or pmap; None: the arrays are the whole batch.
    tile_size: largest number of rows and columns of the N x N matrix in memory at once, one number or two.
    ids: pairs with equal ids (duplicate captions, one concept) are not negatives of each other.
    method: communication between devices, see `pairwise_loss`.
  Returns: the mean over the global batch in nats; log(batch) is chance. 0 if every pair is absent.
  Raises:
    ValueError: the shapes differ, an axis is not bound, a tile size is below 1, or a concrete scale is not positive.

  Example:
    >>> import jax.numpy as jnp
    >>> from mmjax.objectives import clip_loss
    >>> image = text = jnp.eye(4)  # unit-norm embeddings of 4 pairs
    >>> print(f"{clip_loss(image, text, logit_scale=10.0):.4f}")
    0.0001
  """
  rows, columns = image_text(image, text, logit_scale, weights, ids)
  return pairwise_loss(CLIP, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)


def wrong(row: Features, col: Features) -> Array:
  """Negated sigmoid logits: -z (s <x, y> + b), where z is 1 for positives and -1 for other pairs."""
  logits = similarity(row["x"], col["y"], row["scale"])
  logits = logits + row["bias"].astype(logits.dtype)[:, None]
  return jnp.where(same_pair(row, col), -logits, logits)


def counted(losses: Array, row: Features, col: Features) -> Array:
  """Weights the losses of a tile. The weight of a pair is w_i w_j, and 0 for false negatives.

  This applies the column's weight; the mean over rows applies the row's.
  """
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
  """Sigmoid loss over all pairs of the global batch, summed over columns and averaged over rows.

  Source: Zhai et al. 2023, section 3.2.

  Args:
    image: unit-norm image embeddings of the local pairs, float32, float64 or bfloat16.
    text: unit-norm text embeddings of the local pairs, of the same dtype.
    logit_scale: the logits are logit_scale <x, y> + logit_bias (scale already exponentiated); one for all or one per
      image.
    logit_bias: see logit_scale; one for all or one per image.
    weights: the pair (i, j) has weight w_i w_j, and the sum is divided by sum w. A pair of weight 0 is absent.
    axis_name: see `clip_loss`.
    tile_size: see `clip_loss`.
    ids: different examples with equal ids are neither positive nor negative.
    method: see `clip_loss`.
  Returns: the mean over the global batch, in nats. 0 if every pair is absent.
  Raises:
    ValueError: the shapes differ, an axis is not bound, a tile size is below 1, or a concrete scale is not positive.
  """
  rows, columns = image_text(image, text, logit_scale, weights, ids, bias=logit_bias)
  return pairwise_loss(SIGLIP, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)
