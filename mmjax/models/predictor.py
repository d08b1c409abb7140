"""Predictor of a number: towers of any modalities, a fusion if there is one, and a linear layer to a number."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
from jax import Array
from jaxtyping import Float

from mmjax.models.joined import Joined, JoinedConfig
from mmjax.nn.stochastic import Rngs
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictorConfig(JoinedConfig):
  """Towers, and a linear layer from their pooled vectors to a number, in standard deviations from the training mean.

  The vectors of several towers stand side by side, or a fusion makes one of them.
  """

  @property
  def outputs(self) -> int:
    return 1

  def build(self) -> nn.Module:
    return Predictor(self)


class Predictor(Joined):
  """Model of a PredictorConfig.

  Parameters: those of `Joined`, with number_projection/{kernel,bias} (not with late fusion). The projection begins at
  zero, which is the training mean.
  """

  config: PredictorConfig
  head = "number_projection"

  def predict(self, encoded: Mapping[str, Encoded], *, rng: Rngs = None) -> Float[Array, "batch"]:
    """The number for each example in float32, from the encodings of all towers. `rng` is that of `outputs`."""
    return self.outputs(encoded, rng=rng)[:, 0]
