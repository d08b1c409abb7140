"""Base class of model configurations, and functions on them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from mmjax.encoders.config import TowerConfig
from mmjax.errors import ConfigError
from mmjax.kinds import Kind, undefined


class ModelConfig(Kind):
  """Base class of model configurations. The field `model` of an experiment holds one."""

  def build(self) -> nn.Module:
    """Make the linen module. Its only attribute `config` is this configuration."""
    raise undefined(self, "build")

  def fitted(self, learnt: Mapping[str, Any]) -> "ModelConfig":
    """Return the configuration with the fields that depend on the data. Called before the first step.

    Args:
      learnt: values that columns learned from the training data, by column name (Column.fit). A tower gets those of
        the column that has its name.
    """
    found = {name: tower for name, tower in towers(self).items() if name in learnt and isinstance(tower, TowerConfig)}
    return with_towers(self, {name: tower.fitted(learnt[name]) for name, tower in found.items()}) if found else self

  def example(self, batch_size: int) -> dict[str, Array]:
    """Make a batch of zeros with the arrays that the model encodes, for `init`.

    Configurations with the fields `image` and `text` need not define it.
    """
    fields: Any = self
    side = image_size(self)
    image = {"image": jnp.zeros((batch_size, side, side, 3), jnp.float32)} if side else {}
    return image | {"text": jnp.zeros((batch_size, fields.text.max_length), jnp.int32)}

  @property
  def frozen(self) -> tuple[str, ...]:
    """Regular expressions of the paths of parameters that no run of the model trains."""
    return ()

  @property
  def counts_codes(self) -> bool:
    """True if training counts the use of codes over the global batch."""
    return False

  def clamped(self, params: Any) -> Any:
    """Bring parameters that have limits back into them. The trainer calls it after each update."""
    return params


def init_params(model: Any, key: Array) -> Any:
  """Make random parameters of a model, a linen module with a ModelConfig."""
  return model.init(key, model.config.example(1))["params"]


def image_size(config: ModelConfig) -> int:
  """Height and width of the images that a model takes, in pixels. 0 for a model without images."""
  return next((tower.image_size for tower in towers(config).values() if hasattr(tower, "image_size")), 0)


def towers(config: Any) -> dict[str, Any]:
  """Towers of a model by name.

  Args:
    config: configuration of the model.
  Returns: those of its field `towers`. Without it: its fields `image`, `audio` and `text`, and all that hold a
    TowerConfig.
  """
  if hasattr(config, "towers"):
    return dict(config.towers)
  names = dict.fromkeys(("image", "audio", "text", *(field.name for field in dataclasses.fields(config))))
  found = {name: getattr(config, name, None) for name in names}
  usual = ("image", "audio", "text")
  return {n: t for n, t in found.items() if isinstance(t, TowerConfig) or (n in usual and dataclasses.is_dataclass(t))}


def with_towers(config: Any, changed: Mapping[str, Any]) -> Any:
  """Replace towers of a model by name. Raises ConfigError for an ensemble, whose members have their own."""
  if hasattr(config, "models"):
    raise ConfigError("the towers of an ensemble are those of its members: change or begin the members one by one")
  fields = {"towers": {**config.towers, **changed}} if hasattr(config, "towers") else changed
  return dataclasses.replace(config, **fields)


def with_vocabulary(config: ModelConfig, facts: Mapping[str, Any]) -> ModelConfig:
  """Set the fields of the text towers that depend on the tokenizer.

  Args:
    config: configuration of the model.
    facts: values of `vocab_size`, `max_length`, `pad_id`, `eos_id`, `mask_id`, `special_ids` and `image_id`. Each text
      tower takes those for which it has a field.
  Returns: the new configuration.
  """
  if hasattr(config, "models"):  # of an ensemble
    ensemble: Any = config
    return dataclasses.replace(ensemble, models=tuple(with_vocabulary(model, facts) for model in config.models))
  return with_towers(config, {name: _worded(tower, facts) for name, tower in towers(config).items()})


def _worded(tower: Any, facts: Mapping[str, Any]) -> Any:
  names = {field.name for field in dataclasses.fields(tower)}
  known = {name: value for name, value in facts.items() if name in names}
  return dataclasses.replace(tower, **known) if "vocab_size" in names else tower
