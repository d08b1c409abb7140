"""Image-text contrastive losses: softmax (CLIP) and sigmoid (SigLIP)."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

AxisName = str | tuple[str, ...] | None


def clip_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  *,
  logit_scale: Float[Array, ""] | float,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: int | None = None,
) -> Float[Array, ""]:
  """Symmetric InfoNCE over the global batch (Radford et al. 2021, section 2.3), in nats."""
  del tile_size  # a dense placeholder; the tiled engine comes behind the same name
  weights = jnp.ones(len(image), image.dtype) if weights is None else weights
  scale = jnp.asarray(logit_scale, jnp.float32)
  present = _gather(weights, axis_name) > 0
  rows = jnp.where(present[None, :], scale * _dot(image, _gather(text, axis_name)), -1e30)
  columns = jnp.where(present[None, :], scale * _dot(text, _gather(image, axis_name)), -1e30)
  pairs = scale * jnp.einsum("bd,bd->b", image, text, preferred_element_type=jnp.float32)
  losses = (jax.nn.logsumexp(rows, axis=1) + jax.nn.logsumexp(columns, axis=1)) / 2 - pairs
  return _mean(losses, weights, axis_name)


def siglip_loss(
  image: Float[Array, "batch dim"],
  text: Float[Array, "batch dim"],
  *,
  logit_scale: Float[Array, ""] | float,
  logit_bias: Float[Array, ""] | float,
  weights: Float[Array, "batch"] | None = None,
  axis_name: AxisName = None,
  tile_size: int | None = None,
) -> Float[Array, ""]:
  """Sigmoid loss over all pairs: summed over a row, averaged over rows (Zhai et al. 2023, eq. 1)."""
  del tile_size
  weights = jnp.ones(len(image), image.dtype) if weights is None else weights
  texts = _gather(text, axis_name)
  logits = jnp.asarray(logit_scale, jnp.float32) * _dot(image, texts) + jnp.asarray(logit_bias, jnp.float32)
  first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * len(image)
  positive = jnp.arange(len(image))[:, None] + first == jnp.arange(len(texts))[None, :]
  losses = jax.nn.softplus(jnp.where(positive, -logits, logits)) * _gather(weights, axis_name)[None, :]
  return _mean(losses.sum(axis=1), weights, axis_name)


def _dot(x: Array, y: Array) -> Array:
  return jnp.dot(x, y.T, preferred_element_type=jnp.float32)


def _gather(x: Array, axis_name: AxisName) -> Array:
  return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def _mean(losses: Array, weights: Array, axis_name: AxisName) -> Array:
  weights = weights.astype(losses.dtype)
  total, weight = (losses * weights).sum(), weights.sum()
  if axis_name is not None:
    total, weight = jax.lax.psum((total, weight), axis_name)
  return jnp.where(weight > 0, total / jnp.where(weight > 0, weight, 1), 0)
