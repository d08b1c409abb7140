"""Masked image modelling: what guessing hidden patches costs, as pixels or as the numbers of a codebook."""

from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.objectives.per_example import ExampleLosses, cross_entropy, mean_where


def masked_pixel_loss(
  predicted: Float[Array, "batch patches pixels"],
  target: Float[Array, "batch patches pixels"],
  hidden: Bool[Array, "batch patches"],
  *,
  kind: Literal["squared", "absolute"] = "squared",
) -> ExampleLosses:
  """Mean error of a pixel of the hidden patches; weight 0 where none is hidden.

  "squared" with normalize_patches' targets is MAE's loss (He et al. 2022, section 3), "absolute" with the pixels
  themselves SimMIM's (Xie et al. 2022, section 3.4). Predicting a normalised patch's mean costs 1.
  """
  error = predicted.astype(jnp.float32) - target.astype(jnp.float32)
  return mean_where((jnp.square(error) if kind == "squared" else jnp.abs(error)).mean(-1), hidden)


def masked_code_loss(
  logits: Float[Array, "batch patches codes"],
  codes: Int[Array, "batch patches"],
  hidden: Bool[Array, "batch patches"],
) -> ExampleLosses:
  """Cross-entropy of the hidden patches' code numbers (Bao et al. 2022, BEiT, eq. 2); log(codes) is chance.

  Weight 0 where nothing is hidden. Codes come from `nearest_code`, or from any other tokenizer.
  """
  return mean_where(cross_entropy(logits, codes), hidden)
