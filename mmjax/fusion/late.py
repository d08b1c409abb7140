"""Late fusion: every modality decides alone, and the decisions are averaged."""

import flax.linen as nn
import jax.numpy as jnp

from mmjax.fusion.tokens import present
from mmjax.nn.dense import Dense
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs
from mmjax.types import Encoded


class Late(nn.Module):
  """A linear head per modality, and the average of what those say that are there.

  With `width` classes these are logits (late fusion of decisions), with any other number features. The tokens of the
  result are the modalities' own answers, for a loss on each of them, and `pooled` is the average, which is what to
  evaluate (Nagrani et al. 2021, section 3.4). Modalities do not interact.

  Attributes:
    width: of each head.
    dtype: compute dtype.
  """

  width: int
  dtype: str

  @nn.compact
  def __call__(self, *encoded: Encoded, rng: Rngs = None) -> Encoded:
    del rng  # nothing random happens
    init = nn.initializers.lecun_normal()
    answers = [
      Dense(self.width, init, dtype=self.dtype, name=f"input_{i}_projection")(e.pooled) for i, e in enumerate(encoded)
    ]
    tokens, mask = jnp.stack(answers, axis=1), present(encoded)
    return Encoded(tokens, mask, mean_pool(tokens, mask))
