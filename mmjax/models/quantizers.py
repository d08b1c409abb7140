"""Quantizers: from a vector to one of a fixed number of codes, and from a code back to a vector."""

import dataclasses
import math
from typing import Any, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int

from mmjax.kinds import Kind
from mmjax.nn.channel_norm import STATISTICS
from mmjax.nn.dense import Dense
from mmjax.nn.stochastic import Rngs, fold_in

Points = tuple[tuple[int, float], ...]
_INIT = nn.initializers.lecun_normal()


@flax.struct.dataclass
class Quantized:
  """Result of a quantizer.

  Attributes:
    latents: what a decoder reads. The gradient goes to the encoder as if there were no rounding.
    codes: the codes.
    penalty: loss of the quantizer for each example, float32.
  """

  latents: Float[Array, "batch positions dim"]
  codes: Int[Array, "batch positions"]
  penalty: Float[Array, "batch"]


class QuantizerConfig(Kind):
  """Base class of the configurations of quantizers."""

  @property
  def num_codes(self) -> int:
    """Number of codes. They are 0 to num_codes - 1."""
    raise NotImplementedError

  def build(self) -> "Quantizer":
    """Make the linen module."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Fsq(QuantizerConfig):
  """Finite scalar quantization: each of a few dimensions is rounded to a few levels (Mentzer et al. 2023).

  There is no codebook that could collapse, and no loss. A code is a combination of levels.
  """

  levels: tuple[int, ...] = (8, 5, 5, 5)
  """Number of levels of each dimension. The paper uses 8 6 5 for 240 codes, 8 5 5 5 for 1000, 7 5 5 5 5 for 4375."""

  def __post_init__(self) -> None:
    if not self.levels or min(self.levels) < 2:
      raise ValueError(f"levels={self.levels} must be numbers of at least 2")

  @property
  def num_codes(self) -> int:
    return math.prod(self.levels)

  def build(self) -> "Quantizer":
    return FsqQuantizer(self)


@dataclasses.dataclass(frozen=True)
class VectorQuantizer(QuantizerConfig):
  """Vector quantization with a codebook of moving averages (VQ-VAE, van den Oord et al. 2017, appendix A.1).

  A code moves to the mean of the vectors that chose it. A code that is hardly chosen moves to the vector of a random
  position of a random image (Dhariwal et al. 2020, Jukebox, section 3.1).
  """

  codes: int = 128
  """Number of codes."""
  dim: int = 16
  """Dimension of the codes."""
  commitment: float = 0.25
  """Weight of the mean squared distance of the vectors from their codes."""
  revived: float = 0.02
  """A code is dead if it is chosen less often than this share of 1 / codes. 0: dead codes stay dead."""
  revival: float = 1 / 64
  """Probability for each image of a batch that a dead code moves to one of its vectors: about 1 / batch size."""

  def __post_init__(self) -> None:
    if self.codes < 2 or self.dim < 1:
      raise ValueError(f"codes={self.codes} must be at least 2, and dim={self.dim} at least 1")
    if not 0 <= self.revived < 1 or not 0 < self.revival <= 1:
      raise ValueError(f"revived={self.revived} must lie in [0, 1), and revival={self.revival} in (0, 1]")

  @property
  def num_codes(self) -> int:
    return self.codes

  def build(self) -> "Quantizer":
    return NearestQuantizer(self)


@dataclasses.dataclass(frozen=True)
class GumbelQuantizer(QuantizerConfig):
  """Codes drawn from a categorical distribution, relaxed by a softmax (dVAE of DALL-E, Ramesh et al. 2021, app. A).

  In evaluation, the likeliest code is taken.
  """

  codes: int = 128
  """Number of codes."""
  dim: int = 16
  """Dimension of the codes."""
  temperature: Points = ((0, 1.0), (1000, 1 / 16))
  """(step, temperature of the softmax) points, linear between them. DALL-E: from 1 to 1/16 in 150,000 steps."""
  kl_weight: Points = ((0, 0.0),)
  """(step, weight) points of the mean KL divergence of a position from equally frequent codes, in nats. The other loss
  is a mean over colours, so neither the batch nor the grid scales it. DALL-E: from 0 to 6.6 / 192 in 5,000 steps."""

  def __post_init__(self) -> None:
    if self.codes < 2 or self.dim < 1:
      raise ValueError(f"codes={self.codes} must be at least 2, and dim={self.dim} at least 1")
    for name in ("temperature", "kl_weight"):
      steps = [step for step, _ in getattr(self, name)]
      if not steps or steps != sorted(set(steps)):
        raise ValueError(f"{name}={getattr(self, name)} must be (step, value) points with rising steps")
    if min(value for _, value in self.temperature) <= 0:
      raise ValueError(f"temperature={self.temperature} must be positive")

  @property
  def num_codes(self) -> int:
    return self.codes

  def build(self) -> "Quantizer":
    return SoftmaxQuantizer(self)


class RunningMean(nn.Module):
  """Running average of statistics of training batches, a parameter without a gradient. Parameter: mean.

  It moves as the averages of batch norm do. The statistics are means over rows. Each device has as many rows, so that
  the number of devices changes nothing.

  Attributes:
    shape: shape of the statistics.
    init: initialiser.
  """

  shape: tuple[int, ...]
  init: Any

  def setup(self) -> None:
    self.mean = self.param("mean", self.init, self.shape, jnp.float32)

  def __call__(self) -> Float[Array, "..."]:
    return jax.lax.stop_gradient(self.mean)

  def observe(self, statistics: Float[Array, "..."]) -> None:
    """Leave the statistics of a batch for the training step."""
    if self.is_mutable_collection(STATISTICS):
      self.put_variable(STATISTICS, "mean", jax.lax.stop_gradient(statistics)[None])


class Quantizer(nn.Module):
  """Base of quantizers. Parameters: use/mean, the running share of the positions that choose each code.

  It is called with (tokens [batch, positions, width], rng, step), and returns Quantized. `rng` has one key per example;
  None: evaluation.
  """

  config: Any

  def setup(self) -> None:
    number = self.config.num_codes
    self.use = RunningMean((number,), lambda key, shape, dtype: jnp.full(shape, 1 / number, dtype))
    self.use()  # makes the parameter, which evaluation does not read
    self.make()

  def make(self) -> None:
    """Make the submodules."""
    raise NotImplementedError

  def __call__(self, tokens: Array, *, rng: Rngs = None, step: Array | int = 0) -> Quantized:
    raise NotImplementedError

  def lookup(self, codes: Int[Array, "batch positions"]) -> Float[Array, "batch positions dim"]:
    """The vectors of codes, as `Quantized.latents` has them in evaluation."""
    raise NotImplementedError

  def usage(self) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(share of the codes in use, perplexity of the codes), over the last 10 or so training batches.

    A code is in use if it is chosen at least 1% as often as if all were equally frequent.
    """
    use = self.use() / jnp.maximum(self.use().sum(), 1e-12)
    entropy = -jnp.where(use > 0, use * jnp.log(jnp.maximum(use, 1e-30)), 0.0).sum()
    return (use * len(use) > 0.01).mean(dtype=jnp.float32), jnp.exp(entropy)

  def _shares(self, codes: Int[Array, "batch positions"]) -> Float[Array, "codes"]:
    return jnp.zeros(self.config.num_codes, jnp.float32).at[codes.reshape(-1)].add(1 / codes.size)


class FsqQuantizer(Quantizer):
  """Quantizer of an Fsq. Parameters: projection, use."""

  def make(self) -> None:
    self.projection = Dense(len(self.config.levels), _INIT)

  def __call__(self, tokens: Array, *, rng: Rngs = None, step: Array | int = 0) -> Quantized:
    levels = np.array(self.config.levels)
    bounded = fsq_bound(self.projection(tokens).astype(jnp.float32), self.config.levels)
    rounded = bounded + jax.lax.stop_gradient(jnp.round(bounded) - bounded)
    digits = jax.lax.stop_gradient(jnp.round(bounded)).astype(jnp.int32) + jnp.asarray(levels // 2)[None, None]
    codes = (digits * jnp.asarray(_basis(self.config.levels))[None, None]).sum(-1)
    if rng is not None:
      self.use.observe(self._shares(codes))
    return Quantized(rounded / jnp.asarray(levels // 2, jnp.float32)[None, None], codes, jnp.zeros(len(tokens)))

  def lookup(self, codes: Int[Array, "batch positions"]) -> Float[Array, "batch positions dim"]:
    levels = np.array(self.config.levels)
    digits = codes[..., None] // jnp.asarray(_basis(self.config.levels))[None, None] % jnp.asarray(levels)[None, None]
    half = jnp.asarray(levels // 2)[None, None]
    return (digits - half).astype(jnp.float32) / half.astype(jnp.float32)


def fsq_bound(z: Float[Array, "*batch dim"], levels: tuple[int, ...]) -> Float[Array, "*batch dim"]:
  """Squash each dimension so that rounding gives its number of levels (Mentzer et al. 2023, appendix A.1).

  Args:
    z: unbounded values.
    levels: number of levels of each dimension. An even number has one more level below zero than above.
  """
  each = np.array(levels)
  half = (each - 1) * (1 - 1e-3) / 2  # the largest value stays below the next rounding
  offset = np.where(each % 2, 0.0, 0.5)
  wide = lambda value: jnp.expand_dims(jnp.asarray(value, jnp.float32), range(z.ndim - 1))
  return jnp.tanh(z + wide(np.arctanh(offset / half))) * wide(half) - wide(offset)


def _basis(levels: tuple[int, ...]) -> np.ndarray:
  return np.cumprod((1, *levels[:-1])).astype(np.int32)


class NearestQuantizer(Quantizer):
  """Quantizer of a VectorQuantizer. Parameters: projection, use, total.

  total/mean is the running mean of the vectors that chose a code, times its share. So a code is total / use.
  """

  def make(self) -> None:
    c = self.config
    self.projection = Dense(c.dim, _INIT)
    self.total = RunningMean((c.codes, c.dim), lambda *key: jax.random.normal(*key) / c.codes)

  def __call__(self, tokens: Array, *, rng: Rngs = None, step: Array | int = 0) -> Quantized:
    z = self.projection(tokens).astype(jnp.float32)
    codebook = self._codebook()
    distance = jnp.square(codebook).sum(-1)[None, None] - 2.0 * jnp.einsum("bpd,cd->bpc", z, codebook)
    codes = jnp.argmin(distance, axis=-1).astype(jnp.int32)
    nearest = jnp.take(codebook, codes, axis=0)
    if rng is not None:
      self._observe(jax.lax.stop_gradient(z), codes, rng)
    penalty = self.config.commitment * jnp.square(z - nearest).mean((1, 2))
    return Quantized(z + jax.lax.stop_gradient(nearest - z), codes, penalty)

  def lookup(self, codes: Int[Array, "batch positions"]) -> Float[Array, "batch positions dim"]:
    return jnp.take(self._codebook(), codes, axis=0)

  @nn.nowrap
  def _codebook(self) -> Float[Array, "codes dim"]:
    return self.total() / jnp.maximum(self.use(), 1e-12)[:, None]

  @nn.nowrap
  def _observe(self, z: Float[Array, "batch positions dim"], codes: Array, rng: Rngs) -> None:
    shares, flat = self._shares(codes), rearrange(z, "b p d -> (b p) d")
    total = jnp.zeros((self.config.codes, z.shape[-1])).at[codes.reshape(-1)].add(flat / codes.size)
    dead = self.use() < self.config.revived / self.config.codes
    chosen, vectors = self._chosen(z, dead, rng)
    # A revived code weighs as one that is chosen as often as the mean of all codes, so that its old place is forgotten.
    weights = chosen * (10 / self.config.codes / self.config.revival / len(z))
    self.use.observe(shares + weights.sum(0))
    self.total.observe(total + (weights[:, :, None] * vectors).sum(0))

  @nn.nowrap
  def _chosen(
    self, z: Float[Array, "batch positions dim"], dead: Bool[Array, "codes"], rng: Rngs
  ) -> tuple[Float[Array, "batch codes"], Float[Array, "batch codes dim"]]:
    """(1 where a dead code moves to a vector of an image, that vector). Each image draws by its own key."""
    number, keys = self.config.codes, cast(Array, fold_in(rng, 77))

    def of_image(key: Array, own: Float[Array, "positions dim"]) -> tuple[Array, Array]:
      chance = jax.random.uniform(key, (number,)) < self.config.revival
      places = jax.random.randint(jax.random.fold_in(key, 1), (number,), 0, len(own))
      return (chance & dead).astype(jnp.float32), own[places]

    return jax.vmap(of_image)(keys, z)


class SoftmaxQuantizer(Quantizer):
  """Quantizer of a GumbelQuantizer. Parameters: projection, code_embedding, use."""

  def make(self) -> None:
    c = self.config
    self.projection = Dense(c.codes, _INIT)
    self.table = self.param("code_embedding", nn.initializers.normal(1.0), (c.codes, c.dim), jnp.float32)

  def __call__(self, tokens: Array, *, rng: Rngs = None, step: Array | int = 0) -> Quantized:
    c, log_probs = self.config, jax.nn.log_softmax(self.projection(tokens).astype(jnp.float32))
    if rng is None:
      codes = jnp.argmax(log_probs, axis=-1).astype(jnp.int32)
      return Quantized(self.lookup(codes), codes, jnp.zeros(len(tokens)))
    noise = jax.vmap(lambda key: jax.random.gumbel(key, log_probs.shape[1:]))(fold_in(rng, 78))
    drawn = log_probs + noise
    soft = jax.nn.softmax(drawn / _at(step, c.temperature))
    codes = jnp.argmax(drawn, axis=-1).astype(jnp.int32)
    self.use.observe(self._shares(codes))
    divergence = (jnp.exp(log_probs) * log_probs).sum(-1).mean(1) + math.log(c.codes)
    return Quantized(jnp.einsum("bpc,cd->bpd", soft, self.table), codes, _at(step, c.kl_weight) * divergence)

  def lookup(self, codes: Int[Array, "batch positions"]) -> Float[Array, "batch positions dim"]:
    return jnp.take(self.table, codes, axis=0)


def _at(step: Array | int, points: Points) -> Float[Array, ""]:
  """Value at a step, linear between the points."""
  steps, values = zip(*points, strict=True)
  at = jnp.asarray(step).astype(jnp.float32)
  return jnp.interp(at, jnp.asarray(steps, jnp.float32), jnp.asarray(values, jnp.float32))
