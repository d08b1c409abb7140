"""Initial values of transformers, by the paper or code that they come from."""

from typing import Literal

import flax.linen as nn

from mmjax.nn.dense import Initializer

InitScheme = Literal["clip", "xavier", "bert"]


def kernel_init(scheme: InitScheme, deviation: float) -> Initializer:
  """Initialiser of a kernel of a transformer.

  Args:
    scheme: see `TransformerConfig.init_scheme`.
    deviation: standard deviation of scheme "clip".
  """
  match scheme:
    case "clip":
      return nn.initializers.normal(deviation)
    case "xavier":
      return nn.initializers.xavier_uniform()
    case "bert":
      return nn.initializers.truncated_normal(0.02)


def embedding_init(scheme: InitScheme, deviation: float, width: int) -> Initializer:
  """Initialiser of the embeddings of tokens or positions, and of learned tokens.

  Args:
    scheme: see `TransformerConfig.init_scheme`.
    deviation: standard deviation of scheme "clip".
    width: width of the embeddings.
  """
  return nn.initializers.normal(width**-0.5) if scheme == "xavier" else kernel_init(scheme, deviation)
