"""Late fusion: an output per modality, averaged."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.fusion.tokens import present
from mmjax.nn.dense import Dense
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs
from mmjax.types import Encoded


class Late(nn.Module):
  """A linear head per modality, averaged over the modalities that the example has.

  If `width` is the number of classes, the outputs are logits (late fusion of decisions); otherwise they are features.
  The tokens of the result are the outputs of the single modalities, for a loss on each of them. `pooled` is their
  average, which is used for evaluation (Nagrani et al. 2021, section 3.4). Modalities do not interact.

  Attributes:
    width: width of each head.
    dtype: compute dtype.
  """

  width: int
  dtype: str

  @nn.compact
  def __call__(self, *encoded: Encoded, rng: Rngs = None) -> Encoded:
    """Fuses the pooled vectors. `rng` is ignored: the fusion has no randomness."""
    del rng  # the fusion has no randomness
    init = nn.initializers.lecun_normal()
    answers = [
      Dense(self.width, init, dtype=self.dtype, name=f"input_{i}_projection")(e.pooled) for i, e in enumerate(encoded)
    ]
    tokens, mask = jnp.stack(answers, axis=1), present(encoded)
    return Encoded(tokens, mask, mean_pool(tokens, mask))
