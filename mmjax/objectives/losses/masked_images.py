"""Masked image modelling losses: hidden patches are predicted as pixels or as codebook numbers."""

from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.objectives.losses.per_example import ExampleLosses, cross_entropy, mean_where


def masked_pixel_loss(
  predicted: Float[Array, "batch patches pixels"],
  target: Float[Array, "batch patches pixels"],
  hidden: Bool[Array, "batch patches"],
  *,
  kind: Literal["squared", "absolute"] = "squared",
) -> ExampleLosses:
  """Mean error per pixel of the hidden patches. The weight is 0 if no patch is hidden.

  "squared" with the targets of `normalize_patches` is MAE's loss (He et al. 2022, section 3). "absolute" with pixels is
  SimMIM's (Xie et al. 2022, section 3.4). To predict the mean of a normalised patch costs 1.

  Args:
    predicted: predicted pixels of each patch.
    target: target pixels of each patch.
    hidden: True for hidden patches.
    kind: squared or absolute error.
  """
  error = predicted.astype(jnp.float32) - target.astype(jnp.float32)
  return mean_where((jnp.square(error) if kind == "squared" else jnp.abs(error)).mean(-1), hidden)


def masked_code_loss(
  logits: Float[Array, "batch patches codes"],
  codes: Int[Array, "batch patches"],
  hidden: Bool[Array, "batch patches"],
) -> ExampleLosses:
  """Cross-entropy of the codebook numbers of hidden patches (Bao et al. 2022, BEiT, eq. 2); log(codes) is chance.

  The weight is 0 if no patch is hidden. Codes come from `nearest_code`, or from any other tokenizer.
  """
  return mean_where(cross_entropy(logits, codes), hidden)
