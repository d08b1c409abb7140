"""Variants of the contrastive losses: decoupled, focal, and with a running normaliser."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.contrastive import counted, masked_logits, wrong
from mmjax.objectives.features import Features, Scalar, TileSize, hide, image_text, same_pair
from mmjax.objectives.pairwise import Pairwise, batch_mean, pairwise_loss, pairwise_statistics
from mmjax.objectives.reductions import EMPTY
from mmjax.objectives.similarity import pair_similarity
from mmjax.parallel.ring import AxisName


def _negatives(row: Features, col: Features) -> Array:
  return hide(masked_logits(row, col), same_pair(row, col))


def _decoupled(stats: Features, row: Features, col: Features) -> Array:
  pair = pair_similarity(row["x"], col["y"], row["scale"])
  losses = [jnp.where(lse > EMPTY / 2, lse - pair, 0) for lse in stats["negatives"]]  # 0 without any negative
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
  """Decoupled contrastive loss: the positive is not in the denominator (Yeh et al. 2022, L_DC), both ways.

  Arguments as for clip_loss. Returns: the mean over the global batch, in nats; it can be negative.
  """
  rows, columns = image_text(image, text, logit_scale, weights, ids)
  return pairwise_loss(DCL, rows, columns, axis_name=axis_name, tile_size=tile_size, method=method)


def _focal_tile(row: Features, col: Features) -> dict[str, Array]:
  error = wrong(row, col)
  # (1 - p)^gamma = sigmoid(wrong)^gamma, written so that it never is 0^gamma
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
  """siglip_loss with easy pairs turned down by (1 - p)^gamma (Lin et al. 2017, eq. 4); gamma 0 is
  siglip_loss.

  Arguments and result as for siglip_loss.
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
  """Contrastive loss with a running normaliser per example, unbiased at small batches (Yuan et al. 2022,
  alg. 1).

  With g_i the mean over negatives of exp(S_ij - S_ii), u_i <- (1 - gamma) u_i + gamma g_i and the loss is
  the mean of g_i / stop_gradient(u_i): the gradient of log g_i with u_i in the denominator (FastCLIP, Wei et
  al. 2024, section 4).

  Args:
    log_u: log u of the local images and texts, kept by the caller between epochs; -inf: never seen, u_i =
      g_i.
    gamma: in (0, 1], the share of this batch.
    others as for clip_loss.
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
