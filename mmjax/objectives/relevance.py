"""Which pixels is the question about?"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mmjax.objectives.per_example import ExampleLosses


def relevance_loss(
  logits: Float[Array, "batch height width"],
  target: Float[Array, "batch height width"],
  *,
  kind: Literal["bce", "squared", "absolute"] = "bce",
) -> ExampleLosses:
  """Error of sigmoid(logits) against a mask, mean over pixels.

  "bce" is the one to use: where few pixels are relevant, "squared" and above all "absolute" error are nearly at their
  least when nothing is marked, and the sigmoid's slope vanishes there (mIoU on the scenes .988, .623 and .096). Those
  two are here for the experiment that shows it.

  Args:
    target: 1 where the pixel is what the question is about, 0 elsewhere; an example without any is a fact too.
  """
  logits, target = logits.astype(jnp.float32), target.astype(jnp.float32)
  if kind == "bce":
    losses = jax.nn.softplus(logits) - target * logits
  else:
    error = jax.nn.sigmoid(logits) - target
    losses = jnp.square(error) if kind == "squared" else jnp.abs(error)
  return ExampleLosses(losses.mean((1, 2)), jnp.ones(len(logits), jnp.float32))
