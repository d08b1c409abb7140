"""Several `Encoded` side by side, and apart again."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs
from mmjax.types import Encoded


def join(encoded: Sequence[Encoded], dtype: str) -> tuple[Float[Array, "batch length w"], Bool[Array, "batch length"]]:
  """All modalities' tokens in one row, in the order given, and their masks.

  Raises: ValueError where they are not of one width.
  """
  widths = [e.tokens.shape[-1] for e in encoded]
  if len(set(widths)) != 1:
    raise ValueError(f"tokens of one row must have one width, and these have {widths}: project them first")
  tokens = jnp.concatenate([e.tokens.astype(dtype) for e in encoded], axis=1)
  return tokens, jnp.concatenate([e.mask for e in encoded], axis=1)


def split(fused: Encoded, like: Sequence[Encoded]) -> list[Encoded]:
  """What `fused` says at the tokens of each modality; every one of them has the joint `pooled`.

  Args:
    fused: what a fusion of tokens gave for `like`.
    like: the modalities, in the order in which they were fused.
  Raises: ValueError where the lengths do not add up.
  """
  lengths = [e.mask.shape[1] for e in like]
  if sum(lengths) != fused.mask.shape[1]:
    raise ValueError(f"{fused.mask.shape[1]} fused tokens are not those of modalities of {lengths} tokens")
  ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
  starts = [end - length for end, length in zip(ends, lengths, strict=True)]
  return [
    Encoded(fused.tokens[:, start:end], fused.mask[:, start:end], fused.pooled)
    for start, end in zip(starts, ends, strict=True)
  ]


def check_width(encoded: Sequence[Encoded], width: int) -> None:
  """Raises ValueError unless all tokens have the fusion's width."""
  widths = [e.tokens.shape[-1] for e in encoded]
  if any(found != width for found in widths):
    raise ValueError(f"tokens must be of the fusion's width {width}, not {widths}")


def with_tokens(encoded: Encoded, tokens: Float[Array, "batch length w"]) -> Encoded:
  """The same tokens after something was done to them."""
  return Encoded(tokens, encoded.mask, encoded.pooled)


def present(encoded: Sequence[Encoded]) -> Bool[Array, "batch modalities"]:
  """Which modalities an example has: those with at least one real token."""
  return jnp.stack([e.mask.any(axis=1) for e in encoded], axis=1)


def mean_of_firsts(encoded: Sequence[Encoded]) -> Float[Array, "batch width"]:
  """The first tokens of the modalities that are there, averaged; zeros where none is."""
  return mean_pool(jnp.stack([e.tokens[:, 0] for e in encoded], axis=1), present(encoded))


class PooledFusion(nn.Module):
  """An operator on vectors as a fusion of `Encoded`: reads what they pooled, gives one token, which is `pooled` too.

  Padding is the business of whoever pooled.

  Attributes:
    operator: (vectors [batch, width_i], ...) -> [batch, width].
    dtype: of the vectors that it is given.
  """

  operator: nn.Module
  dtype: str

  def __call__(self, *encoded: Encoded, rng: Rngs = None) -> Encoded:
    del rng  # nothing random happens
    fused = self.operator(*[e.pooled.astype(self.dtype) for e in encoded])
    return Encoded(fused[:, None], jnp.ones((fused.shape[0], 1), bool), fused)
