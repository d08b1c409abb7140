"""Common embedding space of models that compare images and texts."""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from mmjax.models.config import ModelConfig
from mmjax.nn.dense import Dense
from mmjax.nn.norm import normalize
from mmjax.types import Encoded


@dataclasses.dataclass(frozen=True)
class ComparingConfig(ModelConfig):
  """Configuration of the common embedding space. Raises ValueError if the initial scale is out of range."""

  embed_dim: int = 256
  """Dimension of the common embedding space."""
  init_logit_scale: float = 1 / 0.07
  """Initial value of the learned factor of the similarities."""
  max_logit_scale: float = 100.0
  """Upper limit of the learned factor. The parameter is clamped to it after each step; inf: no limit."""

  def __post_init__(self) -> None:
    if not 0.0 < self.init_logit_scale <= self.max_logit_scale:
      raise ValueError(
        f"init_logit_scale={self.init_logit_scale} must lie in (0, max_logit_scale={self.max_logit_scale}]"
      )

  def clamped(self, params: Any) -> Any:
    return clamped_scale(params, self.max_logit_scale)


class Comparing(nn.Module):
  """Base class of models that compare images and texts.

  Parameters: image_projection, text_projection (kernels), logit_scale (its logarithm).

  A subclass defines `encode` and a `config` that inherits from ComparingConfig, and calls `setup_comparing` in its
  `setup`.
  """

  @nn.nowrap
  def setup_comparing(self, image_width: int, text_width: int) -> None:
    """Creates the parameters."""
    c: Any = self.config
    project = lambda width: Dense(c.embed_dim, nn.initializers.normal(width**-0.5), use_bias=False)
    self.image_projection, self.text_projection = project(image_width), project(text_width)
    self.log_scale = self.param("logit_scale", nn.initializers.constant(math.log(c.init_logit_scale)), ())

  def project(self, encoded: dict[str, Encoded]) -> dict[str, Float[Array, "batch dim"]]:
    """Unit-norm float32 embeddings of the results of `encode`, by the same names."""
    projections = {"image": self.image_projection, "text": self.text_projection}
    return {name: normalize(projections[name](e.pooled.astype(jnp.float32))) for name, e in encoded.items()}

  @nn.jit
  def encode_image(self, images: Float[Array, "batch *image"]) -> Float[Array, "batch dim"]:
    """Unit-norm float32 embeddings of normalised images."""
    model: Any = self
    return self.project(model.encode({"image": images}))["image"]

  @nn.jit
  def encode_text(self, ids: Int[Array, "batch length"]) -> Float[Array, "batch dim"]:
    """Unit-norm float32 embeddings of token ids."""
    model: Any = self
    return self.project(model.encode({"text": ids}))["text"]

  def logit_scale(self) -> Float[Array, ""]:
    """Factor of the similarities, at most max_logit_scale."""
    return clipped_scale(self.log_scale, self.config.max_logit_scale)

  def logit_bias(self) -> Float[Array, ""]:
    """Bias of the logits: 0."""
    return jnp.zeros((), jnp.float32)


def clamped_scale(params: Any, limit: float) -> Any:
  """Parameters of a model in which exp(logit_scale) is at most `limit`."""
  return {**params, "logit_scale": jnp.minimum(params["logit_scale"], math.log(limit))}


def clipped_scale(log_scale: Float[Array, ""], limit: float) -> Float[Array, ""]:
  """exp(log_scale), at most `limit`.

  The trainer clamps the parameter after each step (CLIP, section 2.5). This limit is for parameters that come from
  elsewhere. At the limit the gradient is that of exp there, not 0, so that the scale can decrease again.
  """
  clamped = log_scale + jax.lax.stop_gradient(jnp.minimum(log_scale, math.log(limit)) - log_scale)
  return jnp.exp(clamped)


def clipped_bias(bias: Float[Array, ""], limit: float) -> Float[Array, ""]:
  """The bias, clipped to [-limit, limit]. Its gradient is also passed on where it is clipped (see `clipped_scale`)."""
  return bias + jax.lax.stop_gradient(jnp.clip(bias, -limit, limit) - bias)
