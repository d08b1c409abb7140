"""Next-sentence prediction."""

from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.losses.per_example import ExampleLosses, class_loss


def next_sentence_loss(logits: Float[Array, "batch 2"], follows: Int[Array, "batch"]) -> ExampleLosses:
  """Cross-entropy of "the second segment follows the first" (1, column 1) against "it does not" (0).

  Source: Devlin et al. 2019, section 3.1. Chance is log 2 if half of the segments follow. -1 (unknown) has weight 0.
  """
  return class_loss(logits, follows)
