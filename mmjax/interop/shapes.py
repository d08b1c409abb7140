"""Module and parameter shapes of a configuration. No parameter is allocated."""

import dataclasses
import functools
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import flax.traverse_util
import jax

from mmjax.encoders.config import TowerConfig
from mmjax.models.config import ModelConfig as SystemConfig
from mmjax.models.config import towers
from mmjax.nn.forms import plain_forms

ModelConfig = SystemConfig | TowerConfig
Flat = dict[str, Any]
"""Parameters by path, such as `image/transformer/block_0/attention/query/kernel`."""

_STACKED = re.compile(r"(^|/)blocks/")


@functools.lru_cache(maxsize=32)
def flat_shapes(config: ModelConfig) -> Mapping[str, tuple[int, ...]]:
  """Shapes of all parameters by path, not stacked over layers. Only one block of each tower is traced, in one form."""
  config = with_scan(config, True)
  with plain_forms():
    shapes = jax.eval_shape(config.build().init, jax.random.key(0), _example(config))["params"]
  return MappingProxyType({path: leaf.shape for path, leaf in _unstacked(flatten(shapes), _take_shape).items()})


def flatten(params: Any) -> Flat:
  """Make a dictionary by path from a tree of parameters."""
  return flax.traverse_util.flatten_dict(params, sep="/")


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Make a tree of parameters from a dictionary by path, the inverse of `flatten`."""
  return flax.traverse_util.unflatten_dict(dict(flat), sep="/")


def per_layer(params: Any) -> Flat:
  """Make a dictionary by path, with one entry per layer where a scanned tower has a stack. Entries are views."""
  return _unstacked(flatten(params), lambda leaf, layer: leaf[layer])


def stacked_paths(path: str) -> tuple[str, int | None]:
  """Path of a layer's parameter in a scanned tower.

  Returns: (path of the stack, number of the layer), or (path, None) if the path is not in a layer.
  """
  found = re.search(r"(^|/)block_(\d+)/", path)
  if found is None:
    return path, None
  return path[: found.start()] + found[1] + "blocks/" + path[found.end() :], int(found[2])


def with_scan(config: Any, scan: bool) -> Any:
  """Set `scan` in all towers of a configuration. It changes no output."""
  return _everywhere(config, "scan", scan)


def with_dtype(config: Any, dtype: str) -> Any:
  """Set the compute dtype in all towers of a configuration."""
  return _everywhere(config, "dtype", dtype)


def _everywhere(config: Any, name: str, new: Any) -> Any:
  """Set a field in all towers of a configuration that have it."""
  values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
  changes = {one: _everywhere(value, name, new) for one, value in values.items() if dataclasses.is_dataclass(value)}
  changes |= {
    one: {key: _everywhere(tower, name, new) for key, tower in value.items()}
    for one, value in values.items()
    if isinstance(value, Mapping)
  }
  changes |= {name: new} if name in values else {}
  return dataclasses.replace(config, **changes) if changes else config


def image_tower(config: Any) -> Any:
  """Configuration of the image tower, in a model or alone. None if there is none."""
  alone = isinstance(config, TowerConfig) and hasattr(config, "image_size")
  return config if alone else towers(config).get("image")


def audio_tower(config: Any) -> Any:
  """Configuration of the tower for sounds, in a model or alone."""
  return towers(config).get("audio", config)


def text_tower(config: Any) -> Any:
  """Configuration of the text tower, in a model or alone."""
  return towers(config).get("text", config)


def depth(config: Any) -> int:
  """Number of blocks of a model, in all its stacks."""
  total = 0
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if dataclasses.is_dataclass(value):
      total += depth(value)
    elif isinstance(value, Mapping):
      total += sum(map(depth, value.values()))
    elif field.name == "layers":  # blocks of the stages of a convolutional tower
      total += sum(value)
    elif field.name.endswith("depth") and value is not None:
      total += value
  return total


def _take_shape(leaf: Any, layer: int) -> Any:
  del layer
  return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)


def _unstacked(flat: Flat, take: Any) -> Flat:
  result: Flat = {}
  for path, leaf in flat.items():
    if not _STACKED.search(path):
      result[path] = leaf
      continue
    for layer in range(leaf.shape[0]):
      result[_STACKED.sub(rf"\g<1>block_{layer}/", path)] = take(leaf, layer)
  return result


def _example(config: ModelConfig) -> Any:
  return jax.eval_shape(lambda: config.example(1))  # only shapes: image_size may be huge
