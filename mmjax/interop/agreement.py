"""Comparison of a run's model with a checkpoint's, and derivation of the one from the other."""

import dataclasses
import math
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from mmjax.encoders.config import TowerConfig
from mmjax.errors import ConfigError
from mmjax.interop.architecture import canonical, differences
from mmjax.interop.errors import InteropError
from mmjax.interop.source import Source
from mmjax.models.classifier import ClassifierConfig
from mmjax.models.config import towers, with_towers
from mmjax.models.shared_space import SharedSpaceConfig
from mmjax.models.two_tower import TwoTowerConfig

Difference = tuple[str, Any, Any]
"""Path of a setting, its value in the run, and its value in the checkpoint."""

# Settings of training. They change no result of a published model, except for rounding (dtype).
_TRAINING = (
  *("drop_path", "dropout", "attention_dropout", "scan", "remat", "dtype", "attention", "patch_dropout"),
  *("mask_id", "special_ids", "patches"),
)
_LIMITS = ("max_logit_scale", "max_logit_bias")
_HEADS = ("embed_dim", "image_projection", "text_projection", "init_logit_bias")
_ROUNDING = 1.001  # a scale of exactly 100 is 100.03 in float16


def derived_model(model: Any, source: Source, into: str) -> Any:
  """Replace the model of a run by that of a checkpoint. Settings that only training uses are kept.

  A model of a subclass, such as Clip4ClipConfig of TwoTowerConfig, keeps its own fields. A model of another class is
  returned unchanged: then it is compared with the checkpoint's.

  Args:
    model: the model of the run.
    source: the checkpoint.
    into: tower to replace, if the checkpoint is a single tower. Empty: the whole model.
  Raises: InteropError: the checkpoint is a single tower and `into` is empty.
  """
  theirs: Any = source.config
  if into and into in towers(model):
    tower = _kept(towers(model)[into], theirs)
    try:
      return model if tower is None else with_towers(model, {into: tower})
    except ValueError as error:
      raise InteropError(f"{source.path}: its tower does not fit the model: {error}") from error
  if isinstance(theirs, TowerConfig):
    raise InteropError(
      f"{source.path} is a single tower ({source.architecture.name}): set --pretrained.into image or text"
    )
  if _is_part(theirs, model):
    return _with_part(model, theirs)
  mine = towers(model)
  if not isinstance(model, type(theirs)) or mine.keys() != towers(theirs).keys():
    return model
  adopted = with_towers(theirs, {n: _kept(mine[n], tower) or tower for n, tower in towers(theirs).items()})
  shared = {field.name: getattr(adopted, field.name) for field in dataclasses.fields(adopted)}
  limits = {name: _limit(source, name, getattr(model, name)) for name in _LIMITS if hasattr(model, name)}
  return dataclasses.replace(model, **shared | limits)


def _is_part(theirs: Any, model: Any) -> bool:
  """True for a tower with its projection, and a model that has a tower of this name."""
  single = isinstance(theirs, SharedSpaceConfig) and theirs.init_logit_scale is None
  return single and isinstance(model, TwoTowerConfig) and theirs.towers.keys() <= model.members.keys()


def _with_part(model: TwoTowerConfig, theirs: SharedSpaceConfig) -> TwoTowerConfig:
  """Replace a tower of a model and its projection by those of a checkpoint."""
  parts: dict[str, Any] = {name: _kept(towers(model)[name], tower) or tower for name, tower in theirs.towers.items()}
  projections: dict[str, Any] = {f"{name}_projection": theirs.projection for name in parts}
  return dataclasses.replace(model, embed_dim=theirs.embed_dim, **parts, **projections)


def model_differences(model: Any, source: Source, into: str, taken: Collection[str]) -> Iterator[Difference]:
  """Find the settings of a run's model that change results and differ from the checkpoint's.

  Args:
    model: the model of the run.
    source: the checkpoint.
    into: tower that is initialised, if the checkpoint is a single tower.
    taken: paths of the parameters that are read. Towers without any are not compared.
  """
  mine, theirs = towers(model), {into: source.config} if into else towers(source.config)
  for name in theirs:
    if name in mine and any(path.startswith(f"{name}/") for path in taken):
      yield from _tower_differences(mine[name], theirs[name], f"model.{name}")
  if isinstance(source.config, ClassifierConfig) and source.config.classes and "class_projection/kernel" in taken:
    yield "model.classes", "those of the data", source.config.classes
  if into or not any(path in source.table.places and path.split("/")[0] not in mine for path in taken):
    return
  heads, other, ours = _heads(canonical(model)), _heads(canonical(source.config)), _heads(model)
  for name in sorted(heads.keys() & other.keys()):
    if heads[name] != other[name]:
      yield f"model.{name}", ours[name], _heads(source.config)[name]
  for name in _LIMITS:
    if hasattr(model, name) and name.removeprefix("max_") in taken:
      least = _limit(source, name, getattr(model, name))
      if least != getattr(model, name):
        yield f"model.{name}", getattr(model, name), least


def _heads(config: Any) -> dict[str, Any]:
  """Settings of a model's projections and logits that change results."""
  found = {name: getattr(config, name) for name in _HEADS if hasattr(config, name)}
  if isinstance(config, SharedSpaceConfig):
    found |= {f"{name}_projection": config.projection for name in config.towers}
    if config.init_logit_scale is None:
      del found["init_logit_bias"]  # it has no logits
  return found


def refuse(path: str, found: list[Difference], allow: tuple[str, ...]) -> None:
  """Raise ConfigError for differences from a checkpoint that `allow` (pretrained.allow) does not name."""
  names = {name.removeprefix("--").replace("-", "_") for name in allow}
  bad = [one for one in found if not names & {one[0], f"model.{one[0]}", *_parents(one[0])}]
  if not bad:
    return
  said = "; ".join(f"{name} is {_short(mine)}, the checkpoint's is {_short(theirs)}" for name, mine, theirs in bad)
  raise ConfigError(
    f"{path} (pretrained.path) was made with other settings than this run, which would give other results: {said}. "
    "Leave these settings to the checkpoint (on the command line: remove the options), or, if the difference is meant, "
    f"set --pretrained.allow {' '.join(sorted({name for name, _, _ in bad}))}"
  )


def _tower_differences(mine: Any, theirs: Any, path: str) -> Iterator[Difference]:
  changing = {name for name, _, _ in differences(canonical(mine), canonical(theirs), path)}
  for name, a, b in differences(mine, theirs, path):
    # A text tower may have fewer positions: texts that fit keep their embedding.
    if name in changing and not (name.endswith(".max_length") and a < b):
      yield name, a, b


def _kept(mine: Any, theirs: Any) -> Any:
  """The checkpoint's tower with the run's settings of training. None if the run's tower is of another class."""
  if type(mine) is not type(theirs):
    return None
  names = {field.name for field in dataclasses.fields(mine)} & {*_TRAINING}
  return dataclasses.replace(theirs, **{name: getattr(mine, name) for name in names})


def _limit(source: Source, name: str, limit: float) -> float:
  """The limit of the logit scale or bias; the checkpoint's value if that is larger, which the limit would clip."""
  place = source.table.places.get(name.removeprefix("max_"))
  if place is None or place.theirs not in source.file.entries:
    return limit
  value = float(np.asarray(place.read(source.file), np.float32).reshape(()))
  value = math.exp(min(value, 80.0)) if name == "max_logit_scale" else abs(value)
  return limit if value <= limit * _ROUNDING else value


def _parents(path: str) -> set[str]:
  steps = path.split(".")
  return {".".join(steps[:count]) for count in range(1, len(steps))} - {"model"}


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) < 300 else text[:300] + "..."
