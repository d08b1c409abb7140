"""Inputs that a model is initialised with."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.models.config import ModelConfig


def image_size(config: ModelConfig) -> int:
  """Side of the pictures a model takes, in pixels; 0 where it sees none."""
  image: Any = getattr(config, "image", None)
  return 0 if image is None else image.image_size


def init_params(model: nn.Module, key: jax.Array) -> Any:
  """Random parameters of a model."""
  config: Any = model
  return model.init(key, example_batch(config.config, 1))["params"]


def example_batch(config: ModelConfig, size: int) -> dict[str, Any]:
  """A batch of zeros of the right shapes: what every model's __call__ takes."""
  side = image_size(config)
  picture = {"image": jnp.zeros((size, side, side, 3), jnp.float32)} if side else {}
  system: Any = config
  text = {"text": jnp.zeros((size, system.text.max_length), jnp.int32)}
  return picture | text | {"index": jnp.zeros((size,), jnp.int32)}
