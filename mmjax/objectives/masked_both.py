"""Masked multimodal modelling: hidden words and hidden patches, each guessed from both (Singh et al. 2022, FLAVA)."""

from jax import Array
from jaxtyping import Bool

from mmjax.objectives.per_example import ExampleLosses, weighted


def masked_multimodal_losses(
  words: ExampleLosses, patches: ExampleLosses, match: Bool[Array, "batch"]
) -> dict[str, ExampleLosses]:
  """The two halves of MMM, apart, each with a head of its own: {"mmm_text": ..., "mmm_image": ...} (FLAVA, 3.1).

  Args:
    words: masked_word_loss of the fused text tokens, picture and text both hidden in part.
    patches: masked_code_loss or masked_pixel_loss of the fused image tokens.
    match: False where picture and text were put together wrongly (matching's negatives): they teach neither half.
  """
  keep = match.astype(words.weights.dtype)
  return {"mmm_text": weighted(words, keep), "mmm_image": weighted(patches, keep)}
