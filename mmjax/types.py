"""Records that cross package borders."""

from collections.abc import Mapping

import flax.struct
from jax import Array
from jaxtyping import Bool, Float

# One batch of examples, on the host (numpy) or on the devices (sharded over the batch axes). Keys:
#   image    float32 [batch, height, width, 3], normalised
#   text     int32   [batch, length], token ids, padded with the tokenizer's pad id
#   index    int32   [batch], the example's number in its source: what per-example randomness is keyed on
#   concept  int32   [batch], equal numbers mean the same thing (false negatives of each other)
Batch = Mapping[str, Array]


@flax.struct.dataclass
class Encoded:
  """What every encoder and every fusion returns, so that any of them can stand where another stood.

  Attributes:
    tokens: one vector per token (patch, word piece, frame).
    mask: True where a token is real, False where it is padding.
    pooled: one vector per example.
  """

  tokens: Float[Array, "batch length width"]
  mask: Bool[Array, "batch length"]
  pooled: Float[Array, "batch width"]
