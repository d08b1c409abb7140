"""Masked multimodal modelling: hidden words and hidden patches, each predicted from both modalities (FLAVA, 2022)."""

from jax import Array
from jaxtyping import Bool

from mmjax.objectives.per_example import ExampleLosses, weighted


def masked_multimodal_losses(
  words: ExampleLosses, patches: ExampleLosses, match: Bool[Array, "batch"]
) -> dict[str, ExampleLosses]:
  """Both losses of masked multimodal modelling: {"mmm_text": ..., "mmm_image": ...} (Singh et al. 2022, section 3.1).

  Each has its own prediction head.

  Args:
    words: masked_word_loss of the fused text tokens, computed with hidden words and hidden patches.
    patches: masked_code_loss or masked_pixel_loss of the fused image tokens.
    match: False for an image and a text that do not belong together (negatives of matching). They get weight 0.
  """
  keep = match.astype(words.weights.dtype)
  return {"mmm_text": weighted(words, keep), "mmm_image": weighted(patches, keep)}
