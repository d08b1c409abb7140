"""Device mesh, and the placement of parameters and batches on it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmjax.errors import ConfigError
from mmjax.parallel.rules import Rules, match_rules

MESH_AXES = ("data", "fsdp", "model")
# A batch is split over both of these axes. Parameters may be split over "fsdp" and "model".
BATCH_AXES = ("data", "fsdp")

# Placement of one parameter. A specification names an axis, or None, for each of the *trailing* dimensions, so that the
# same rule fits a layer and the stack of layers that a scan makes of it. A tactic is a function of the shape and the
# mesh.
Specification = tuple[str | None, ...]
Tactic = Callable[[tuple[int, ...], Mesh], PartitionSpec]
Placement = Specification | Tactic


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
  """Arrangement of the devices, and placement of parameters and batches on them."""

  data: int = -1
  """Devices along the data axis (replicas of the parameters); -1: all devices that the other axes leave."""
  fsdp: int = 1
  """Devices over which parameters and optimiser state are sharded. The batch is split over them as well."""
  model: int = 1
  """Devices over which attention heads and MLP widths are split (tensor parallelism)."""
  microbatches: int = 1
  """Number of microbatches: the encoders process the local batch in this many parts, one after another. The contrastive
  loss still sees the whole batch.
  """
  placement: tuple[tuple[str, str], ...] = ()
  """Placement rules that take precedence over the model's. Each is a pair of a regular expression on the parameter
  path, and the axes of the trailing dimensions, separated by commas ("fsdp,model"; "-" for none), or "largest" (the
  fsdp axis on the largest dimension that it divides).
  """

  def __post_init__(self):
    if self.data < 1 and self.data != -1:
      raise ValueError(f"parallel.data is {self.data}: give a positive number, or -1 for all remaining devices")
    for name in ("fsdp", "model", "microbatches"):
      if getattr(self, name) < 1:
        raise ValueError(f"parallel.{name} is {getattr(self, name)}: it must be at least 1")


def make_mesh(config: ParallelConfig, devices: Sequence[Any] | None = None) -> Mesh:
  """Makes a mesh with the axes data, fsdp and model.

  Args:
    config: size of each axis.
    devices: devices of the mesh; None: all devices.
  Raises:
    ConfigError: the product of the axes is not the number of devices.

  Example:
    >>> import jax
    >>> from mmjax.parallel.mesh import ParallelConfig, make_mesh
    >>> mesh = make_mesh(ParallelConfig(data=-1, fsdp=1), jax.devices()[:1])
    >>> dict(mesh.shape)
    {'data': 1, 'fsdp': 1, 'model': 1}
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
  """Number of shards of a batch: the product of the batch axes."""
  return int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))


def check_batch_size(batch_size: int, mesh: Mesh, microbatches: int, *, what: str = "run.batch_size") -> None:
  """Raises ConfigError unless the batch is divisible by the shards and by the microbatches in each shard.

  Args:
    batch_size: number of rows.
    mesh: the mesh.
    microbatches: number of microbatches per device.
    what: name of the rows, for the error.
  """
  shards = batch_shards(mesh)
  if batch_size % (shards * microbatches):
    below = batch_size - batch_size % (shards * microbatches)
    raise ConfigError(
      f"{what}={batch_size} cannot be divided over {shards} devices (data={mesh.shape['data']} x "
      f"fsdp={mesh.shape['fsdp']}) x {microbatches} microbatches; use a multiple of {shards * microbatches}, "
      f"such as {below + shards * microbatches}"
    )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Sharding of a batch: the leading axis over the batch axes, the other axes not split."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """Sharding of an array that every device holds as a whole."""
  return NamedSharding(mesh, PartitionSpec())


def put_batch(batch: Mapping[str, Any], mesh: Mesh) -> dict[str, Any]:
  """Places this process's examples of a host batch on its devices, as part of the global batch.

  A batch of several streams is a mapping of batches, and so is the result.
  """
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), dict(batch))


def put_rows(rows: Any, sharding: NamedSharding) -> jax.Array:
  """Places rows that every process can provide (an array or LazyRows).

  A process reads only the rows of its own devices.
  """
  taken: dict[Any, np.ndarray] = {}

  def part(index: Any) -> np.ndarray:
    key = tuple((piece.start, piece.stop) for piece in index)
    if key not in taken:  # devices that hold the same rows share them
      taken[key] = rows[index]
    return taken[key]

  return jax.make_array_from_callback(rows.shape, sharding, part)


def largest(shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  """Tactic that puts the fsdp axis on the largest dimension that it divides (of equal dimensions, the last)."""
  size = mesh.shape["fsdp"]
  dimensions = [i for i, n in enumerate(shape) if n % size == 0 and n >= size]
  if not dimensions:
    return PartitionSpec()
  chosen = max(dimensions, key=lambda i: (shape[i], i))
  return PartitionSpec(*("fsdp" if i == chosen else None for i in range(len(shape))))


def parse_placement(text: str) -> Placement:
  """Parses the command-line form of a placement ("fsdp,model", "-,model", "", "largest").

  Raises:
    ConfigError: an axis is unknown.
  """
  if text == "largest":
    return largest
  axes = tuple(None if name in ("-", "") else name for name in text.split(","))
  for axis in axes:
    if axis is not None and axis not in MESH_AXES:
      raise ConfigError(f"placement {text!r} names the axis {axis!r}; axes are {', '.join(MESH_AXES)}, or '-' for none")
  return () if axes == (None,) else axes


def parameter_shardings(rules: Rules[Placement], shapes: Any, mesh: Mesh) -> Any:
  """A NamedSharding for every parameter, chosen by ordered rules on its path.

  An axis that does not divide its dimension is left out, so small layers are replicated.
  """
  placements = match_rules([(e, _Boxed(p)) for e, p in rules], shapes, purpose="placement")

  def sharding(leaf, boxed):
    return NamedSharding(mesh, _specification(boxed.placement, leaf.shape, mesh))

  return jax.tree.map(sharding, shapes, placements)


@dataclasses.dataclass(frozen=True)
class _Boxed:
  """Wraps a placement (a tuple), so that it is a leaf of the tree."""

  placement: Placement


def _specification(placement: Placement, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
  if callable(placement):
    return placement(shape, mesh)
  trailing = placement[max(0, len(placement) - len(shape)) :]
  axes = (None,) * (len(shape) - len(trailing)) + tuple(trailing)
  fits = (axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape, strict=True))
  return PartitionSpec(*fits)
