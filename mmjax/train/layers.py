"""Layers of towers by parameter path, for a learning rate that decays towards the input and for training top layers."""

import re
from collections.abc import Iterable
from typing import Any

import jax

from mmjax.errors import ConfigError
from mmjax.parallel.rules import parameter_path

_BLOCK = re.compile(r"^(?P<tower>[^/]+)/(?:.*/)?(?:stage_(?P<stage>\d+)_)?block_(?P<block>\d+)(/|$)")
_STAGE = re.compile(r"^(?P<tower>[^/]+)/stage_(?P<stage>\d+)_")
_LAST = re.compile(r"^[^/]+/(transformer/norm|norm|pool|attention_pool|tanh_pool|head|last\w*)(/|$)")
_STACKED = re.compile(r"(^|/)blocks/")
_MEMBERS = re.compile(r"^members_\d+/")


def distances(params: Any) -> Any:
  """Number of layers between each parameter and the heads, as a tree of the same structure.

  A tower with n blocks has layers 0 (stem and embeddings), 1 to n (its blocks; a stage's downsampling belongs to its
  first block) and n + 1 (last norm and pooling), as in BEiT (Bao et al. 2022, appendix H). Layer n + 1 and all
  parameters outside of towers with blocks have distance 0, and the stem has distance n + 1.

  Args:
    params: parameters, or their shapes. The first part of a path is the tower.
  Raises: ConfigError: the blocks of a tower are stacked in one array (scan), or the model is an ensemble.
  """
  blocks = _blocks(_paths(params))
  return jax.tree_util.tree_map_with_path(lambda path, _: _distance(_path(path), blocks), params)


def decayed(params: Any, decay: float) -> Any:
  """Multiplier of the learning rate of each parameter: decay ** distance."""
  return jax.tree.map(lambda distance: decay**distance, distances(params))


def on_top(params: Any, layers: int) -> Any:
  """True for the parameters of the top `layers` blocks of each tower and for what follows them. 0: only the heads."""
  known = _blocks(_paths(params))
  most = max((len(numbers) for numbers in known.values()), default=0)
  if layers > most:
    raise ConfigError(f"optimizer.top_layers is {layers}, but the deepest tower has {most} blocks: leave it out")

  def trained(path: Any, distance: int) -> bool:
    return distance <= layers and (layers > 0 or _path(path).split("/")[0] not in known)

  return jax.tree_util.tree_map_with_path(trained, distances(params))


def _path(key_path: Any) -> str:
  """Path of a parameter. An adapter has that of its kernel."""
  return parameter_path(key_path).removeprefix("adapters/")


def _paths(params: Any) -> list[str]:
  return [_path(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def _blocks(paths: Iterable[str]) -> dict[str, list[tuple[int, int]]]:
  """(stage, block) of the blocks of each tower, in order. Towers without stages have stage 0."""
  found: dict[str, set[tuple[int, int]]] = {}
  for path in paths:
    if _MEMBERS.search(path):
      raise ConfigError("optimizer.layer_decay and optimizer.top_layers are not for ensembles: train the members alone")
    if _STACKED.search(path):
      raise ConfigError(
        f"{path} stacks the blocks of a tower in one array, which has one learning rate: set --model.TOWER.no-scan to "
        "use optimizer.layer_decay or optimizer.top_layers"
      )
    if match := _BLOCK.search(path):
      found.setdefault(match["tower"], set()).add((int(match["stage"] or 0), int(match["block"])))
  return {tower: sorted(numbers) for tower, numbers in found.items()}


def _distance(path: str, blocks: dict[str, list[tuple[int, int]]]) -> int:
  order = blocks.get(path.split("/")[0])
  if order is None or _LAST.search(path):
    return 0
  if match := _BLOCK.search(path):
    return len(order) - order.index((int(match["stage"] or 0), int(match["block"])))
  stage = _STAGE.search(path)
  first = next((number for number in order if stage and number[0] == int(stage["stage"])), None)
  return len(order) + 1 if first is None else len(order) - order.index(first)
