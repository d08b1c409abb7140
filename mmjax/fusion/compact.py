"""Compact bilinear pooling: the count sketch of the outer product, computed without the outer product."""

import functools
import operator

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int32

from mmjax.fusion.power import power_normalize


def sketch_constants(
  width: int, sketch_dim: int, *, seed: int, modality: int
) -> tuple[Int32[np.ndarray, "width"], Float32[np.ndarray, "width"]]:
  """Returns (bucket, sign) of every feature.

  They depend on the arguments only, so they are neither saved nor trained. NumPy's legacy generator is used because its
  stream is the same in every version.

  Args:
    width: number of features.
    sketch_dim: number of buckets.
    seed: seed of the random numbers.
    modality: number of the modality, so that each has its own buckets and signs.
  """
  random = np.random.RandomState([seed, modality, width, sketch_dim])
  buckets = random.randint(0, sketch_dim, width).astype(np.int32)
  return buckets, (2 * random.randint(0, 2, width) - 1).astype(np.float32)


def count_sketch(
  x: Float[Array, "batch width"], buckets: Int32[np.ndarray, "width"], signs: Float32[np.ndarray, "width"], dim: int
) -> Float32[Array, "batch dim"]:
  """Count sketch in float32: y[bucket(i)] += sign(i) x[i] (Charikar et al. 2002).

  Args:
    x: vectors.
    buckets: bucket of each feature, from `sketch_constants`.
    signs: sign of each feature, from `sketch_constants`.
    dim: width of the sketch.
  """
  signed = x.astype(jnp.float32) * signs[None]
  return jnp.zeros((x.shape[0], dim), jnp.float32).at[:, buckets].add(signed)


class MCB(nn.Module):
  """Multimodal compact bilinear pooling (Fukui et al. 2016, section 3.1, algorithm 1).

  The count sketch of the outer product is the circular convolution of the vectors' count sketches (Pham and Pagh 2013):
  irfft(rfft(sketch(x)) * rfft(sketch(y))). Signed square root and normalisation to unit length follow. The module has
  no parameters and takes any number of modalities. The FFTs run in float32.

  Attributes:
    sketch_dim: width of the result (16,000 in the paper).
    seed: seed of the buckets and signs.
    dtype: dtype of the result.
  """

  sketch_dim: int
  seed: int
  dtype: str

  @nn.compact
  def __call__(self, *vectors: Float[Array, "batch _"]) -> Float[Array, "batch width"]:
    spectra = []
    for modality, x in enumerate(vectors):
      buckets, signs = sketch_constants(x.shape[-1], self.sketch_dim, seed=self.seed, modality=modality)
      spectra.append(jnp.fft.rfft(count_sketch(x, buckets, signs, self.sketch_dim)))
    convolved = jnp.fft.irfft(functools.reduce(operator.mul, spectra), n=self.sketch_dim)
    return power_normalize(convolved).astype(self.dtype)
