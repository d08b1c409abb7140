"""Sampled softmax over items, with a correction for their frequencies (Yi et al. 2019)."""

import jax.numpy as jnp
from jax import Array, nn
from jaxtyping import Float, Int

from mmjax.objectives.losses.inputs import Features, Scalar, TileSize, hide, image_text
from mmjax.objectives.pairwise.engine import Pairwise, pairwise_loss
from mmjax.objectives.pairwise.similarity import pair_similarity, similarity
from mmjax.parallel.ring import AxisName


def _negatives(row: Features, col: Features) -> dict[str, Array]:
  logits = similarity(row["x"], col["y"], row["scale"]) - col["log_q"][None, :]
  hidden = row["id"][:, None] == col["id"][None, :]
  if "seen" in row:
    hidden = hidden | (row["seen"][:, None, :] == col["id"][None, :, None]).any(axis=-1)
  return {"negatives": hide(logits, hidden)}


def _finish(stats: Features, row: Features, col: Features) -> Array:
  own = pair_similarity(row["x"], row["own"], row["scale"]) - row["own_log_q"]
  return nn.softplus(stats["negatives"] - own)


SAMPLED = Pairwise(_negatives, {"negatives": ("row", "lse")}, _finish)


def sampled_softmax_loss(
  user: Float[Array, "batch dim"],
  item: Float[Array, "batch dim"],
  *,
  ids: Int[Array, "batch"],
  log_q: Float[Array, "batch"],
  logit_scale: Scalar,
  other: tuple[Float[Array, "batch dim"], Int[Array, "batch"], Float[Array, "batch"]] | None = None,
  seen: Int[Array, "batch history"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
) -> Float[Array, ""]:
  """Cross-entropy of the item of each user among the items of the global batch, with logits s <u_i, v_j> - log q_j.

  The items are a sample in which item j is with probability q_j (up to a factor). Without the correction, frequent
  items are negatives too often, and are pushed down (Yi et al. 2019, section 3: logQ correction, equation 4; Bengio
  and Senecal 2008). Items equal to the user's own are no negatives of it.

  Args:
    user: unit-norm embeddings of the local users.
    item: unit-norm embeddings of their items, of the same dtype.
    ids: numbers of the items.
    log_q: logarithm of the sampling probability of each item, up to a constant that all columns share. Zeros: no
      correction. It has no gradient.
    logit_scale: multiplies the similarities.
    other: (embeddings, ids, log_q) of further items, which are negatives only (mixed negatives, Yang et al. 2020).
    seen: ids of further items that are no negatives of each user, such as the history. Padding is an id that no item
      has.
    axis_name: mesh axis or axes of the batch, inside shard_map or pmap; None: the arrays are the whole batch.
    tile_size: largest number of rows and columns of the matrix in memory at once, one number or two.
  Returns: the mean over the users of the global batch, in nats. A user without negatives has the loss 0.
  Raises: ValueError: the shapes differ, or the scale is concrete and not positive.

  Example:
    >>> import jax.numpy as jnp
    >>> from mmjax.objectives import sampled_softmax_loss
    >>> x, ids = jnp.ones((2, 1)), jnp.arange(2)  # two users, two items, equal similarities: log 2
    >>> print(f"{sampled_softmax_loss(x, x, ids=ids, log_q=jnp.zeros(2), logit_scale=1.0):.4f}")
    0.6931
  """
  row, column = image_text(user, item, logit_scale)
  row |= {"id": ids, "own": item, "own_log_q": log_q}
  columns = {**column, "id": ids, "log_q": log_q}
  if seen is not None:
    row["seen"] = seen
  if other is not None:
    more = dict(zip(("y", "id", "log_q"), other, strict=True))
    columns = {name: jnp.concatenate([value, more[name]]) for name, value in columns.items()}
  return pairwise_loss(SAMPLED, row, columns, axis_name=axis_name, tile_size=tile_size)
