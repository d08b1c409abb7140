"""Operators without parameters: concatenation, sum, average, product."""

import functools
import operator

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


class Concat(nn.Module):
  """Concatenates the vectors: [batch, sum of widths].

  A linear head on the result is a sum of one function per modality. The modalities do not interact.
  """

  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    return jnp.concatenate(vectors, axis=-1)


class Sum(nn.Module):
  """Sums vectors of equal width. With a linear head, the modalities do not interact (see `Concat`)."""

  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    return functools.reduce(operator.add, of_one_width(vectors))


class Average(nn.Module):
  """Averages vectors of equal width. With a linear head, the modalities do not interact (see `Concat`)."""

  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    return functools.reduce(operator.add, of_one_width(vectors)) / len(vectors)


class Product(nn.Module):
  """Multiplies vectors of equal width elementwise.

  Between two linear maps this is low-rank bilinear pooling (Kim et al. 2017, MLB): P^T (U^T x * V^T y).
  """

  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    return functools.reduce(operator.mul, of_one_width(vectors))


def of_one_width(vectors: tuple[Array, ...]) -> tuple[Array, ...]:
  """Returns the vectors unchanged. Raises ValueError if their widths differ."""
  widths = [vector.shape[-1] for vector in vectors]
  if len(set(widths)) != 1:
    raise ValueError(f"sum, average and product need vectors of one width, not {widths}: project them first")
  return vectors
