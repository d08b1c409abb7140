"""Structured pruning: attention heads and MLP units of transformer towers are removed, so that arrays are smaller.

The units with the least magnitude go. Each block keeps its own, and all blocks of a tower keep as many. The magnitude
of an MLP unit is |up| |gate| |down|, the product of the norms of its weights, and that of a head is |value| |out|. Bias
and norm parameters of what goes are removed with it (Li et al. 2017; Michel et al. 2019 for heads).
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.deploy.formats import DeployError
from mmjax.encoders import TextConfig, ViTConfig
from mmjax.encoders.config import TowerConfig
from mmjax.interop.shapes import flat_shapes, per_layer, unflatten
from mmjax.models.config import towers, with_towers

Flat = Mapping[str, np.ndarray]
_WRITERS = {"attention": ("query", "key", "value"), "mlp": ("up", "gate")}
_READER = {"attention": "out", "mlp": "down"}


def pruned_config(config: Any, *, heads: float = 0.0, units: float = 0.0) -> Any:
  """Configuration of a model without some of its attention heads and MLP units.

  Args:
    config: configuration of a model, or of a ViT or text transformer alone.
    heads: share of the attention heads of each block that are removed. At least one stays.
    units: share of the MLP units of each block that are removed. At least one stays.
  Returns: the configuration. Towers that are neither ViTConfig nor TextConfig stay as they are.
  Raises: DeployError: a share is out of range, there is no such tower, or its heads cannot be removed.

  Example:
    >>> from mmjax.deploy.pruning import pruned_config
    >>> from mmjax.encoders import ViTConfig
    >>> small = pruned_config(ViTConfig(width=64, num_heads=4), heads=0.5, units=0.75)
    >>> small.num_heads, small.head_dim, small.mlp_dim
    (2, 16, 64)
  """
  for name, share in (("heads", heads), ("units", units)):
    if not 0 <= share < 1:
      raise DeployError(f"the share of {name} to remove is {share}: it must lie in [0, 1)")
  small = {name: _small(tower, heads, units) for name, tower in _transformers(config).items()}
  if not small:
    raise DeployError(
      f"{type(config).__name__} has no ViT and no text transformer whose heads and units can be removed"
    )
  return small[""] if "" in small else with_towers(config, small)


def prune(config: Any, params: Any, *, heads: float = 0.0, units: float = 0.0) -> tuple[Any, dict[str, Any]]:
  """Remove attention heads and MLP units of a model.

  Args:
    config: configuration of the model.
    params: its parameters, stacked over layers or not. More entries, such as weights of loss terms, are left out.
    heads, units: as for `pruned_config`.
  Returns: (configuration, parameters) of the smaller model. The parameters are numpy arrays, not stacked over layers.
  Raises: DeployError: as `pruned_config`, or a parameter depends on the heads in a way that is not known here.
  """
  new = pruned_config(config, heads=heads, units=units)
  try:
    shapes, old = flat_shapes(new), flat_shapes(config)
  except ValueError as error:
    raise DeployError(f"this model cannot be without these heads or units: {error}") from error
  flat = {name: np.asarray(array) for name, array in per_layer(params).items() if name in old}
  dims = {name: tower.attention_width // tower.num_heads for name, tower in _transformers(config).items()}
  made = {name: _taken(name, array, flat, shapes, dims) for name, array in flat.items()}
  for name, shape in shapes.items():
    if made[name].shape != shape:
      raise DeployError(
        f"the parameter {name} depends on the number of heads or units in a way that pruning does not know: remove "
        "others (--heads 0 or --units 0)"
      )
  return new, unflatten(made)


def _transformers(config: Any) -> dict[str, Any]:
  """Towers that can be pruned, by the first part of the paths of their parameters: "" for a tower alone."""
  if hasattr(config, "models"):  # the towers of an ensemble are those of its members
    return {}
  found = {"": config} if isinstance(config, TowerConfig) else towers(config)
  return {name: tower for name, tower in found.items() if type(tower) in (ViTConfig, TextConfig)}


def _small(tower: Any, heads: float, units: float) -> Any:
  fields: dict[str, Any] = {"mlp_dim": _left(tower.hidden, units)} if units else {}
  if heads:
    if tower.key_heads is not None:
      raise DeployError("heads that share keys and values (key_heads) cannot be removed: use --heads 0")
    if (tower.pool in ("probe", "map") and isinstance(tower, TextConfig)) or tower.pool == "probe":
      raise DeployError(f'pool="{tower.pool}" has as many heads as the blocks, which cannot be removed: use --heads 0')
    dim = tower.attention_width // tower.num_heads
    fields |= {"num_heads": _left(tower.num_heads, heads), "head_dim": dim}
  if isinstance(tower, ViTConfig) and tower.pool in ("map", "cls_map"):  # the pool stays as it is
    fields |= {"map_heads": tower.map_heads or tower.num_heads, "map_mlp_dim": tower.map_mlp_dim or tower.hidden}
  return dataclasses.replace(tower, **fields)


def _left(number: int, share: float) -> int:
  return max(1, round(number * (1 - share)))


def _taken(
  name: str, array: np.ndarray, flat: Flat, shapes: Mapping[str, tuple[int, ...]], dims: Mapping[str, int]
) -> np.ndarray:
  """A parameter of a block without the heads or units that are removed."""
  found = re.fullmatch(r"((?:.*/)?)(attention|mlp)/(\w+)/(kernel|bias|scale)", name)
  if found is None:
    return array
  block, part, layer, kind = found.groups()
  prefix, reader = f"{block}{part}/", f"{block}{part}/{_READER[part]}/kernel"
  if (
    reader not in flat or shapes[reader] == flat[reader].shape or layer not in (*_WRITERS[part], _READER[part], "norm")
  ):
    return array
  of_tower = dims.get(name.partition("/")[0], dims.get("", 1))
  kept = _kept(prefix, part, flat, width=shapes[reader][0], dim=of_tower if part == "attention" else 1)
  if layer == _READER[part]:
    return array[kept] if kind == "kernel" else array
  return array[..., kept]


def _kept(prefix: str, part: str, flat: Flat, *, width: int, dim: int) -> np.ndarray:
  """Places of the inputs of a branch's last layer that stay, in their order: those of the units of most magnitude.

  Args:
    prefix: path of the branch.
    part: "attention" or "mlp".
    flat: parameters by path.
    width: number of inputs that stay.
    dim: inputs of one unit: those of a head, or 1.
  """
  squares = np.square(flat[f"{prefix}{_READER[part]}/kernel"]).sum(1).reshape(-1, dim).sum(1)
  for layer in ("value",) if part == "attention" else _WRITERS[part]:
    kernel = flat.get(f"{prefix}{layer}/kernel")
    squares = squares if kernel is None else squares * np.square(kernel).sum(0).reshape(-1, dim).sum(1)
  units = np.sort(np.argsort(-squares, kind="stable")[: width // dim])
  return (units[:, None] * dim + np.arange(dim)).ravel()
