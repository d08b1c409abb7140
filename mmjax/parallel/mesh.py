"""The device mesh, and where parameters and batches lie on it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool

from mmjax.errors import ConfigError
from mmjax.parallel.rules import Rules, match_rules

MESH_AXES = ("data", "fsdp", "model")
# A batch is split over these two together; parameters may be split over "fsdp" and "model".
BATCH_AXES = ("data", "fsdp")

# What a placement rule says of one parameter. A specification names an axis, or None, for each of the *trailing*
# dimensions, so that one rule serves a layer and the stack of layers that a scan makes of it. A tactic decides
# from the shape and the mesh.
Specification = tuple[str | None, ...]
Tactic = Callable[[tuple[int, ...], Mesh], PartitionSpec]
Placement = Specification | Tactic


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
  """How the devices are arranged and what lies where."""

  data: int = -1
  """Devices along the data axis (replicas of the parameters); -1 takes all that the other axes leave."""
  fsdp: int = 1
  """Devices over which parameters and optimiser state are sharded; the batch is split over them as well."""
  model: int = 1
  """Devices over which attention heads and MLP widths are split (tensor parallelism)."""
  microbatches: int = 1
  """Pieces in which the local batch goes through the encoders; the contrastive loss still sees all of it."""
  placement: tuple[tuple[str, str], ...] = ()
  """Placement rules that come before the model's own: pairs of a regular expression on the parameter path and
  comma-separated axes of the trailing dimensions ("fsdp,model", "-" for none), or "largest" (the fsdp axis on
  the largest dimension it divides)."""

  def __post_init__(self):
    if self.data < 1 and self.data != -1:
      raise ValueError(f"parallel.data is {self.data}: give a positive number, or -1 for all devices left")
    for name in ("fsdp", "model", "microbatches"):
      if getattr(self, name) < 1:
        raise ValueError(f"parallel.{name} is {getattr(self, name)}: it must be at least 1")


def make_mesh(config: ParallelConfig, devices: Sequence[Any] | None = None) -> Mesh:
  """A mesh with axes data, fsdp, model over all devices (or those given).

  Raises:
    ConfigError: the axes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  rest = config.fsdp * config.model
  data = len(devices) // rest if config.data == -1 else config.data
  if data * rest != len(devices) or data == 0:
    raise ConfigError(
      f"parallel.data={config.data} x fsdp={config.fsdp} x model={config.model} does not make the "
      f"{len(devices)} devices here; choose numbers whose product is {len(devices)}"
    )
  shape = (data, config.fsdp, config.model)
  return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def batch_shards(mesh: Mesh) -> int:
  """Into how many pieces a batch is split."""
  return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def check_batch_size(batch_size: int, mesh: Mesh, microbatches: int) -> None:
  """Raises ConfigError unless the mesh, and the microbatches in each of its shards, divide the batch."""
  shards = batch_shards(mesh)
  if batch_size % (shards * microbatches):
    below = batch_size - batch_size % (shards * microbatches)
    raise ConfigError(
      f"run.batch_size={batch_size} cannot be divided over {shards} devices (data={mesh.shape['data']} x "
      f"fsdp={mesh.shape['fsdp']}) x {microbatches} microbatches; use a multiple of {shards * microbatches}, "
      f"such as {below + shards * microbatches}"
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The leading axis over the batch axes, everything else whole."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """Places this process's rows of a host batch on its devices as part of the global batch."""
  sharding = batch_sharding(mesh)
  return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def put_rows(rows: Any, sharding: NamedSharding) -> jax.Array:
  """Places rows that every process has, or could have (an array or LazyRows): each takes those of its own devices."""
  taken: dict[Any, np.ndarray] = {}

  def part(index: Any) -> np.ndarray:
    key = tuple((piece.start, piece.stop) for piece in index)
    if key not in taken:  # devices that hold the same rows share them
      taken[key] = rows[index]
    return taken[key]

  return jax.make_array_from_callback(rows.shape, sharding, part)


def anywhere(flags: Bool[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
  """Where any process of the group has a flag; all of them have to ask."""
  if jax.process_count() == 1:
    return flags
  from jax.experimental import multihost_utils

  everywhere: np.ndarray = np.asarray(multihost_utils.process_allgather(flags))
  return np.any(everywhere, axis=0)


def largest(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  """Tactic: the fsdp axis on the largest dimension that it divides (the last of equals)."""
  size = mesh.shape["fsdp"]
  dimensions = [i for i, n in enumerate(shape) if n % size == 0 and n >= size]
  if not dimensions:
    return PartitionSpec()
  chosen = max(dimensions, key=lambda i: (shape[i], i))
  return PartitionSpec(*("fsdp" if i == chosen else None for i in range(len(shape))))


def parse_placement(text: str) -> Placement:
  """Reads the command-line form of a placement ("fsdp,model", "-,model", "", "largest")."""
  if text == "largest":
    return largest
  axes = tuple(None if name in ("-", "") else name for name in text.split(","))
  for axis in axes:
    if axis is not None and axis not in MESH_AXES:
      raise ConfigError(f"placement {text!r} names the axis {axis!r}; axes are {', '.join(MESH_AXES)}, '-' is none")
  return () if axes == (None,) else axes


def parameter_shardings(rules: Rules[Placement], shapes: Any, mesh: Mesh) -> Any:
  """A NamedSharding for every parameter, by ordered rules on its path.

  An axis that does not divide its dimension is left out: small layers are replicated rather than refused.
  """
  placements = match_rules([(e, _Boxed(p)) for e, p in rules], shapes, purpose="placement")

  def sharding(leaf, boxed):
    return NamedSharding(mesh, _specification(boxed.placement, leaf.shape, mesh))

  return jax.tree.map(sharding, shapes, placements)


@dataclasses.dataclass(frozen=True)
class _Boxed:
  """Keeps a placement (a tuple) from being taken for a branch of the tree."""

  placement: Placement


def _specification(placement: Placement, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  if callable(placement):
    return placement(shape, mesh)
  trailing = placement[max(0, len(placement) - len(shape)) :]
  axes = (None,) * (len(shape) - len(trailing)) + tuple(trailing)
  fits = (axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape, strict=True))
  return PartitionSpec(*fits)
