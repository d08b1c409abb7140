"""Next-sentence prediction."""

from jax import Array
from jaxtyping import Float, Int

from mmjax.objectives.per_example import ExampleLosses, class_loss


def next_sentence_loss(logits: Float[Array, "batch 2"], follows: Int[Array, "batch"]) -> ExampleLosses:
  """Does the second segment really follow the first (1, column 1) or not (0)? (Devlin et al. 2019, section 3.1)

  Chance is log 2 where half of them follow. -1 (unknown) has weight 0.
  """
  return class_loss(logits, follows)
