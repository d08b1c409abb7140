"""What a compiler said about one step: the record that the planning process hands back, and the cache keeps."""

import dataclasses
from typing import Any

import cattrs


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Collectives of one kind over one set of mesh axes, per device and step.

  Attributes:
    kind: all-reduce, all-gather, reduce-scatter, all-to-all, collective-permute, ...
    axes: the mesh axes along which the devices that take part differ.
    group_size: devices that take part together.
    span: the farthest that two of them are apart, in device numbers.
    count: how often one runs.
    bytes: of the whole arrays; see mmjax.plan.hlo.Collective.
  """

  kind: str
  axes: tuple[str, ...]
  group_size: int
  span: int
  count: int
  bytes: int


@dataclasses.dataclass(frozen=True)
class Facts:
  """A step as compiled for one device of a machine. Byte counts are per device, FLOPs and cycles per device and step.

  Attributes:
    mesh: axis sizes.
    parameters: how many numbers the model learns.
    model_flops: of a step over all devices, by mmjax.plan.model_flops.
    parameter_bytes, optimizer_bytes, average_bytes, batch_bytes: what the step's arguments consist of.
    argument_bytes, output_bytes, alias_bytes, temporary_bytes, code_bytes: the compiler's memory analysis; all 0 where
      the compiler gave up for lack of memory.
    peak_bytes: memory the step needs at once. On TPU what the compiler compares with the memory there is (its size
      of the temporaries counts gaps between buffers twice); elsewhere arguments, results that replace none of them,
      temporaries and code; what a compiler that gave up says the program needs, 0 where it does not say.
    complaint: what a compiler said that gave up for lack of memory; else empty.
    flops: of matrix products and convolutions.
    cycles: the TPU compiler's estimate, and the schedules of hand-written kernels; 0 from compilers that make none.
    memory_traffic: bytes to and from memory.
    collectives: by kind and axes.
    unknown_loops: loops whose trip count could not be read, counted once.
    unknown_kernels: hand-written kernels whose time is not known, counted as nothing.
    kernels: (operation, times, cycles) of the dearest instructions.
    trace_seconds, compile_seconds: how long it took.
    versions: of jax, jaxlib and the compiler's package.
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
    """The step's arguments, by their shapes and placement."""
    return self.parameter_bytes + self.optimizer_bytes + self.average_bytes + self.batch_bytes


_converter = cattrs.Converter(forbid_extra_keys=True)


def to_json(facts: Facts) -> dict[str, Any]:
  """Nested dictionaries, ready for json.dump."""
  return _converter.unstructure(facts)


def from_json(fields: dict[str, Any]) -> Facts:
  """The inverse of to_json."""
  return _converter.structure(fields, Facts)
