"""Variants of the contrastive losses: decoupled, focal, and with a running normaliser."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.losses.contrastive import counted, masked_logits, wrong
from mmjax.objectives.losses.inputs import Features, Scalar, TileSize, hide, image_text, same_pair
from mmjax.objectives.pairwise.engine import Pairwise, batch_mean, pairwise_loss, pairwise_statistics
from mmjax.objectives.pairwise.reductions import EMPTY
from mmjax.objectives.pairwise.similarity import pair_similarity
from mmjax.parallel.ring import AxisName


def _negatives(row: Features, col: Features) -> Array:
  return hide(masked_logits(row, col), same_pair(row, col))


def _decoupled(stats: Features, row: Features, col: Features) -> Array:
  pair = pair_similarity(row["x"], col["y"], row["scale"])
  losses = [jnp.where(lse > EMPTY / 2, lse - pair, 0) for lse in stats["negatives"]]  # 0 without negatives
  return (losses[0] + losses[1]) / 2


DCL = Pairwise(lambda row, col: {"negatives": _negatives(row, col)}, {"negatives": ("both", "lse")}, _decoupled)


def dcl_loss(
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
  """Decoupled contrastive loss in both directions: the denominator excludes the positive (Yeh et al. 2022, L_DC).

  The other arguments are those of `clip_loss`.

  Args:
    image: unit-norm image embeddings of the local pairs.
    text: unit-norm text embeddings of the local pairs.
    logit_scale: multiplies the similarities.
  Returns: the mean over the global batch, in nats. It can be negative.
  """
  rows, columns = image_text(image, text, logit_scale, weights, ids)
  return pairwise_loss(DCL, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)


def _focal_tile(row: Features, col: Features) -> dict[str, Array]:
  error = wrong(row, col)
  # (1 - p)^gamma = sigmoid(wrong)^gamma, in a form that is never 0^gamma
  easy = jnp.exp(-row["gamma"].astype(error.dtype)[:, None] * jax.nn.softplus(-error))
  return {"losses": counted(easy * jax.nn.softplus(error), row, col)}


FOCAL = Pairwise(_focal_tile, {"losses": ("row", "sum")}, lambda stats, row, col: stats["losses"], affine=True)


def focal_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  *,
  logit_scale: Scalar,
  logit_bias: Scalar,
  gamma: Scalar = 2.0,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
  ids: Int[Array, "batch"] | None = None,
  method: str = "ring",
) -> Float[Array, ""]:
  """siglip_loss with each pair weighted by (1 - p)^gamma, so that easy pairs count less (Lin et al. 2017, eq. 4).

  The other arguments are those of `siglip_loss`, and so is the result.

  Args:
    gamma: exponent; one for all or one per image. With 0 this is `siglip_loss`.
  """
  rows, columns = image_text(image, text, logit_scale, weights, ids, bias=logit_bias, gamma=gamma)
  return pairwise_loss(FOCAL, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)


def sogclr_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  log_u: tuple[Float[Array, "batch"], Float[Array, "batch"]],
  *,
  logit_scale: Scalar,
  gamma: float | Float[Array, ""],
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: TileSize = None,
  method: str = "ring",
) -> tuple[Float[Array, ""], tuple[Float[Array, "batch"], Float[Array, "batch"]]]:
  """Contrastive loss with a running normaliser per example, unbiased at small batches (Yuan et al. 2022, alg. 1).

  Let g_i be the mean over negatives of exp(S_ij - S_ii), and u_i <- (1 - gamma) u_i + gamma g_i. The loss is the mean
  of g_i / stop_gradient(u_i). Its gradient is that of log g_i with u_i in the denominator (FastCLIP, Wei et al. 2024,
  section 4). The other arguments are those of `clip_loss`.

  Args:
    image: unit-norm image embeddings of the local pairs.
    text: unit-norm text embeddings of the local pairs.
    log_u: log u of the local images and texts, which the caller keeps between epochs. -inf for an example that has not
      been seen: then u_i = g_i.
    logit_scale: multiplies the similarities.
    gamma: weight of this batch in u, in (0, 1].
  Returns: (loss, new log_u).
  """
  rows, columns = image_text(image, text, logit_scale, weights)
  stats = pairwise_statistics(DCL, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)
  pair = pair_similarity(rows["x"], text, _spread(rows["scale"], len(image)))
  ones = jnp.ones(len(image), pair.dtype) if weights is None else (weights > 0).astype(pair.dtype)
  present = ones.sum() if axis_name is None else jax.lax.psum(ones.sum(), axis_name)
  total, new = jnp.zeros((), pair.dtype), []
  for lse, old in zip(stats["negatives"], log_u, strict=True):
    log_g = lse - pair - jnp.log(jnp.maximum(present - 1, 1))
    mixed = jnp.logaddexp(old + jnp.log1p(-gamma), log_g + jnp.log(gamma))
    new.append(jax.lax.stop_gradient(jnp.where(jnp.isneginf(old), log_g, mixed)))
    total = total + batch_mean(jnp.exp(log_g - new[-1]), weights, axis_name=axis_name) / 2
  return total, (new[0], new[1])


def _spread(scale: Array | None, size: int) -> Array | None:
  return None if scale is None else jnp.broadcast_to(scale, (size,))
