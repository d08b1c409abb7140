"""Contrastive losses with labels: all pairs of equal label are positives."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.losses.inputs import Features, Scalar, TileSize, image_text, same_pair
from mmjax.objectives.pairwise.engine import Pairwise, pairwise_loss
from mmjax.objectives.pairwise.similarity import similarity
from mmjax.parallel.ring import AxisName


def _label_tile(row: Features, col: Features) -> dict[str, Array]:
  logits = similarity(row["x"], col["y"], row["scale"])
  same = row["id"][:, None] == col["id"][None, :]
  return {"logits": logits, "positives": jnp.where(same, logits, 0), "count": same.astype(logits.dtype)}


def _unicl(stats: Features, row: Features, col: Features) -> Array:
  sides = zip(stats["logits"], stats["positives"], stats["count"], strict=True)
  return sum(lse - total / jnp.maximum(count, 1) for lse, total, count in sides) / 2


UNICL = Pairwise(
  _label_tile, {"logits": ("both", "lse"), "positives": ("both", "sum"), "count": ("both", "sum")}, _unicl
)


def unicl_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  labels: Int[Array, "batch"],
  *,
  logit_scale: Scalar,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
  method: str = "ring",
) -> Float[Array, ""]:
  """Contrastive loss whose positives are all image-text pairs with equal labels, in both directions.

  Source: UniCL (Yang et al. 2022, section 3.2). With distinct labels it equals `clip_loss`. The other arguments are
  those of `clip_loss`.

  Args:
    image: unit-norm image embeddings of the local pairs.
    text: unit-norm text embeddings of the local pairs.
    labels: label of each pair.
  Returns: the mean over the global batch, in nats.
  """
  rows, columns = image_text(image, text, logit_scale, weights, labels)
  return pairwise_loss(UNICL, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)


def _supcon_tile(row: Features, col: Features) -> dict[str, Array]:
  tile, self = _label_tile(row, col), same_pair(row, col)
  return {name: jnp.where(self, -jnp.inf if name == "logits" else 0, a) for name, a in tile.items()}


def _supcon(stats: Features, row: Features, col: Features) -> Array:
  count = stats["count"]
  return jnp.where(count > 0, stats["logits"] - stats["positives"] / jnp.maximum(count, 1), 0)


SUPCON = Pairwise(
  _supcon_tile, {"logits": ("row", "lse"), "positives": ("row", "sum"), "count": ("row", "sum")}, _supcon
)


def supcon_loss(
  features: Float[Array, "batch dim"],
  labels: Int[Array, "batch"],
  *,
  logit_scale: Scalar,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
  method: str = "ring",
) -> Float[Array, ""]:
  """Supervised contrastive loss within one set of embeddings (Khosla et al. 2020, eq. 2).

  For several views of an image, concatenate the views along the batch, with equal labels. An example is never compared
  with itself. An example without a positive contributes 0. The other arguments are those of `clip_loss`.

  Args:
    features: unit-norm embeddings of the local examples.
    labels: label of each example.
  Returns: the mean over the global batch, in nats.
  """
  rows, columns = image_text(features, features, logit_scale, weights, labels)
  return pairwise_loss(SUPCON, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)


def supcon_views_loss(
  one: Float[Array, "batch dim"],
  other: Float[Array, "batch dim"],
  labels: Int[Array, "batch"],
  *,
  logit_scale: Scalar,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
) -> Float[Array, ""]:
  """supcon_loss over two views (or modalities) of every example, which share the example's label.

  The other arguments are those of `clip_loss`.

  Args:
    one: unit-norm embeddings of the first view.
    other: unit-norm embeddings of the second view.
    labels: label of each example.
  Returns: the mean over the 2 n embeddings of the global batch, in nats.
  """
  features, both = jnp.concatenate([one, other]), jnp.concatenate([labels, labels])
  return supcon_loss(features, both, logit_scale=logit_scale, axis_name=axis_name, tile_size=tile_size)
