"""Late fusion: an output per modality, averaged."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from mmjax.errors import ConfigError
from mmjax.fusion.tokens import present
from mmjax.nn.dense import Dense
from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs
from mmjax.types import Encoded

Decision = tuple[Float[Array, "batch width"], Bool[Array, "batch"]]
"""(output of the head of a modality, in float32; True where the example has the modality)."""


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


def decisions(fused: Encoded, names: Sequence[str], kind: str) -> dict[str, Decision]:
  """Outputs of the single modalities, by name, for a loss on each of them.

  Args:
    fused: result of `Late`.
    names: names of the modalities, in the order in which they were fused.
    kind: kind of the fusion.
  Raises:
    ConfigError: it is not "late".
  """
  if kind != "late":
    raise ConfigError(f'fusion.kind="{kind}" has no classifier for each modality: set fusion.kind="late"')
  return {name: (fused.tokens[:, i].astype(jnp.float32), fused.mask[:, i]) for i, name in enumerate(names)}
