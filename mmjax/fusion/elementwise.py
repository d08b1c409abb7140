"""The operators without parameters: side by side, sum, average, product."""

import functools
import operator

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


class Concat(nn.Module):
  """The vectors side by side, [batch, sum of widths].

  A linear head on this is a sum of one function per modality: no modality can change what another one means.
  """

  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    return jnp.concatenate(vectors, axis=-1)


class Sum(nn.Module):
  """The sum of vectors of one width. As `Concat`, it cannot interact before a linear head."""

  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    return functools.reduce(operator.add, of_one_width(vectors))


class Average(nn.Module):
  """The mean of vectors of one width. As `Concat`, it cannot interact before a linear head."""

  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    return functools.reduce(operator.add, of_one_width(vectors)) / len(vectors)


class Product(nn.Module):
  """The elementwise product of vectors of one width, any number of them.

  Between two linear maps it is the low-rank bilinear pooling of Kim et al. 2017 (MLB): P^T (U^T x * V^T y).
  """

  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    return functools.reduce(operator.mul, of_one_width(vectors))


def of_one_width(vectors: tuple[Array, ...]) -> tuple[Array, ...]:
  """The vectors as they are. Raises ValueError where their widths differ."""
  widths = [vector.shape[-1] for vector in vectors]
  if len(set(widths)) != 1:
    raise ValueError(f"sum, average and product need vectors of one width, not {widths}: project them first")
  return vectors
