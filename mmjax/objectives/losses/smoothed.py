"""Contrastive loss with label smoothing, for noisy captions (Jia et al. 2021, ALIGN)."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.losses.contrastive import masked_logits
from mmjax.objectives.losses.inputs import Features, Scalar, TileSize, image_text
from mmjax.objectives.pairwise.engine import Pairwise, pairwise_loss
from mmjax.objectives.pairwise.similarity import pair_similarity
from mmjax.parallel.ring import AxisName


def _align_tile(row: Features, col: Features) -> dict[str, Array]:
  logits = masked_logits(row, col)
  counted = ~jnp.isneginf(logits)
  return {"logits": logits, "total": jnp.where(counted, logits, 0), "count": counted.astype(logits.dtype)}


def _align(stats: Features, row: Features, col: Features) -> Array:
  pair = pair_similarity(row["x"], col["y"], row["scale"])
  share, losses = row["smoothing"], jnp.zeros_like(pair)
  for lse, total, count in zip(stats["logits"], stats["total"], stats["count"], strict=True):
    losses = losses + lse - (1 - share) * pair - share * total / jnp.maximum(count, 1)
  return losses / 2


ALIGN = Pairwise(_align_tile, {"logits": ("both", "lse"), "total": ("both", "sum"), "count": ("both", "sum")}, _align)


def align_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  *,
  logit_scale: Scalar,
  label_smoothing: Scalar = 0.1,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
  ids: Int[Array, "batch"] | None = None,
  method: str = "ring",
) -> Float[Array, ""]:
  """clip_loss with the target (1 - e) one-hot + e uniform over all columns (ALIGN, section 5.1: e = 0.1).

  With e = 0 it equals `clip_loss`. Columns that are left out (equal ids, weight 0) are not part of the uniform target.
  The other arguments are those of `clip_loss`.

  Args:
    image: unit-norm image embeddings of the local pairs.
    text: unit-norm text embeddings of the local pairs.
    logit_scale: multiplies the similarities.
    label_smoothing: e; one for all or one per image.
  Returns: the mean over the global batch, in nats; log(batch) is chance.
  """
  rows, columns = image_text(image, text, logit_scale, weights, ids, smoothing=label_smoothing)
  return pairwise_loss(ALIGN, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)
