"""Functions that join the tokens of several `Encoded` and split them again."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from mmjax.nn.pooling import mean_pool
from mmjax.nn.stochastic import Rngs, dropout, fold_in
from mmjax.nn.transformer import TransformerConfig
from mmjax.types import Encoded


def join(encoded: Sequence[Encoded], dtype: str) -> tuple[Float[Array, "batch length w"], Bool[Array, "batch length"]]:
  """Concatenates the tokens and the masks of all modalities, in the given order.

  Raises:
    ValueError: the widths of the tokens differ.
  """
  widths = [e.tokens.shape[-1] for e in encoded]
  if len(set(widths)) != 1:
    raise ValueError(f"tokens that are joined must have one width, not {widths}: project them first")
  tokens = jnp.concatenate([e.tokens.astype(dtype) for e in encoded], axis=1)
  return tokens, jnp.concatenate([e.mask for e in encoded], axis=1)


def split(fused: Encoded, like: Sequence[Encoded]) -> list[Encoded]:
  """Splits the tokens of a fusion by modality. Every part has the joint `pooled`.

  Args:
    fused: result of a fusion of `like` that returns the tokens of all modalities.
    like: the modalities, in the order in which they were fused.
  Returns: one `Encoded` per modality.
  Raises:
    ValueError: the lengths do not add up.
  """
  lengths = [e.mask.shape[1] for e in like]
  if sum(lengths) != fused.mask.shape[1]:
    raise ValueError(f"{fused.mask.shape[1]} fused tokens cannot be split into modalities of {lengths} tokens")
  ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
  starts = [end - length for end, length in zip(ends, lengths, strict=True)]
  return [
    Encoded(fused.tokens[:, start:end], fused.mask[:, start:end], fused.pooled)
    for start, end in zip(starts, ends, strict=True)
  ]


def check_width(encoded: Sequence[Encoded], width: int) -> None:
  """Raises ValueError unless the tokens of all modalities have the fusion's width."""
  widths = [e.tokens.shape[-1] for e in encoded]
  if any(found != width for found in widths):
    raise ValueError(f"tokens must have the fusion's width {width}, not {widths}")


def with_tokens(encoded: Encoded, tokens: Float[Array, "batch length w"]) -> Encoded:
  """Replaces the tokens of an `Encoded`; mask and pooled vector stay."""
  return Encoded(tokens, encoded.mask, encoded.pooled)


def first_streams(encoded: Sequence[Encoded], config: TransformerConfig, rng: Rngs) -> list[Encoded]:
  """Tokens before the first block of fusions with blocks of each modality: in the compute dtype, with dropout."""
  streams = []
  for i, e in enumerate(encoded):
    kept = dropout(e.tokens, rate=config.dropout, rng=fold_in(fold_in(rng, i), config.depth))
    streams.append(with_tokens(e, kept.astype(config.dtype)))
  return streams


def present(encoded: Sequence[Encoded]) -> Bool[Array, "batch modalities"]:
  """True for each modality of which an example has at least one real token."""
  return jnp.stack([e.mask.any(axis=1) for e in encoded], axis=1)


def mean_of_firsts(encoded: Sequence[Encoded]) -> Float[Array, "batch width"]:
  """Average of the first tokens of the modalities that an example has; zeros if it has none."""
  return mean_pool(jnp.stack([e.tokens[:, 0] for e in encoded], axis=1), present(encoded))


class PooledFusion(nn.Module):
  """Fusion of `Encoded` by an operator on their pooled vectors. The result has one token, which is also `pooled`.

  Masks are not read: the pooling of each encoder must have dealt with padding.

  Attributes:
    operator: (vectors [batch, width_i], ...) -> [batch, width].
    dtype: dtype of the vectors that the operator gets.
  """

  operator: nn.Module
  dtype: str

  def __call__(self, *encoded: Encoded, rng: Rngs = None) -> Encoded:
    """Fuses the pooled vectors. `rng` is ignored: the fusion has no randomness."""
    del rng  # the fusion has no randomness
    fused = self.operator(*[e.pooled.astype(self.dtype) for e in encoded])
    return Encoded(fused[:, None], jnp.ones((fused.shape[0], 1), bool), fused)
