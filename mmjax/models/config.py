"""The base of the configurations of models."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmjax.kinds import Kind


class ModelConfig(Kind):
  """Configuration of a model: towers, and what reads them. A run's `model` is one of these."""

  def build(self) -> nn.Module:
    """Returns the linen module, whose one attribute `config` is this configuration."""
    raise NotImplementedError

  def example(self, batch_size: int) -> dict[str, Array]:
    """A batch of zeros with the arrays that the model encodes, for `init`.

    A model with the fields `image` and `text` need not define it.
    """
    fields: Any = self
    side = image_size(self)
    image = {"image": jnp.zeros((batch_size, side, side, 3), jnp.float32)} if side else {}
    return image | {"text": jnp.zeros((batch_size, fields.text.max_length), jnp.int32)}


def init_params(model: Any, key: Array) -> Any:
  """Random parameters of a model (a linen module with a ModelConfig)."""
  return model.init(key, model.config.example(1))["params"]


def image_size(config: ModelConfig) -> int:
  """Height and width of the images that a model takes, in pixels; 0 for a model without images."""
  for part in _parts(config):
    if hasattr(part, "image_size"):
      return part.image_size
  return 0


def with_vocabulary(config: ModelConfig, facts: Mapping[str, Any]) -> ModelConfig:
  """The model with its text towers made for a tokenizer.

  Args:
    config: the model.
    facts: `vocab_size`, `max_length`, `pad_id`, `eos_id`, `mask_id`, `special_ids`. Each tower takes those it has.
  """
  fields: Any = config
  changes: dict[str, Any] = {}
  if hasattr(config, "towers"):
    changes["towers"] = {name: _worded(tower, facts) for name, tower in fields.towers.items()}
  elif hasattr(config, "text"):
    changes["text"] = _worded(fields.text, facts)
  return dataclasses.replace(fields, **changes)


def _worded(tower: Any, facts: Mapping[str, Any]) -> Any:
  names = {field.name for field in dataclasses.fields(tower)}
  known = {name: value for name, value in facts.items() if name in names}
  return dataclasses.replace(tower, **known) if "vocab_size" in names else tower


def _parts(config: Any) -> list[Any]:
  towers = list(getattr(config, "towers", {}).values())
  return towers or [getattr(config, "image", None)]
