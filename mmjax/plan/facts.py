"""Facts that a compiler reports about one step. The planning process returns them, and the cache stores them."""

import dataclasses
from typing import Any

import cattrs


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Collectives of one kind over one set of mesh axes, per device and step.

  Attributes:
    kind: all-reduce, all-gather, reduce-scatter, all-to-all, collective-permute, ...
    axes: mesh axes along which the devices of a group differ.
    group_size: number of devices in a group.
    span: largest difference between two device numbers in a group.
    count: number of runs.
    bytes: bytes of the whole arrays (see mmjax.plan.hlo.Collective).
  """

  kind: str
  axes: tuple[str, ...]
  group_size: int
  span: int
  count: int
  bytes: int


@dataclasses.dataclass(frozen=True)
class Facts:
  """Facts about a step compiled for one device of a machine.

  Bytes are per device. FLOPs and cycles are per device and step, unless an attribute says otherwise.

  Attributes:
    mesh: sizes of the axes.
    parameters: number of learned parameters of the model.
    model_flops: FLOPs of a step over all devices, by mmjax.plan.model_flops.
    parameter_bytes, optimizer_bytes, average_bytes, batch_bytes: sizes of the parts of the step's arguments.
    argument_bytes, output_bytes, alias_bytes, temporary_bytes, code_bytes: the compiler's memory analysis. All are 0 if
      the compiler gave up for lack of memory.
    peak_bytes: peak memory of the step. On TPU, the peak that the compiler compares with the memory of the device
      (`temporary_bytes` counts gaps between buffers twice). On other platforms, the sum of arguments, outputs that
      are not aliased to arguments, temporaries and code. If the compiler gave up, the bytes that its error names, or 0
      if it names none.
    complaint: error of a compiler that gave up for lack of memory; otherwise empty.
    flops: FLOPs of matrix products and convolutions.
    cycles: cycles by the TPU compiler's estimates and by its schedules of hand-written kernels. 0 if the compiler makes
      no estimates.
    memory_traffic: bytes to and from memory.
    collectives: collectives by kind and axes.
    unknown_loops: number of loops whose trip count could not be read. They count as one iteration.
    unknown_kernels: number of hand-written kernels whose time is unknown. They count as 0 cycles.
    kernels: (operation, runs, cycles) of the most expensive instructions.
    trace_seconds, compile_seconds: duration of tracing and of compiling.
    versions: versions of jax, jaxlib and the compiler's packages.
  """

  mesh: dict[str, int]
  parameters: int
  model_flops: int
  parameter_bytes: int
  optimizer_bytes: int
  average_bytes: int
  batch_bytes: int
  trace_seconds: float
  compile_seconds: float
  versions: dict[str, str]
  argument_bytes: int = 0
  output_bytes: int = 0
  alias_bytes: int = 0
  temporary_bytes: int = 0
  code_bytes: int = 0
  peak_bytes: int = 0
  complaint: str = ""
  flops: int = 0
  cycles: int = 0
  memory_traffic: int = 0
  collectives: tuple[Traffic, ...] = ()
  unknown_loops: int = 0
  unknown_kernels: int = 0
  kernels: tuple[tuple[str, int, int], ...] = ()

  @property
  def known_bytes(self) -> int:
    """Bytes of the step's arguments, from their shapes and shardings."""
    return self.parameter_bytes + self.optimizer_bytes + self.average_bytes + self.batch_bytes


_converter = cattrs.Converter(forbid_extra_keys=True)


def to_json(facts: Facts) -> dict[str, Any]:
  """Make nested dictionaries for json.dump."""
  return _converter.unstructure(facts)


def from_json(fields: dict[str, Any]) -> Facts:
  """Make facts from nested dictionaries, the inverse of `to_json`."""
  return _converter.structure(fields, Facts)
