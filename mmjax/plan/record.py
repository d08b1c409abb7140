"""The Plan: what a step needs, does and costs on a machine, and where each number comes from."""

import dataclasses
from typing import Any, Literal

import cattrs

from mmjax.plan.facts import Traffic


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on one device while a step runs, by what they hold.

  `temporaries` are activations, gradients and scratch; `runtime` is what running takes beside the compiled program.
  """

  parameters: int
  optimizer: int
  average: int
  batch: int
  temporaries: int
  code: int
  outputs: int
  runtime: int


@dataclasses.dataclass(frozen=True)
class Link(Traffic):
  """Traffic, with what the wires see of it.

  Attributes:
    wire_bytes: that a device sends in a step: of an all-reduce 2 (n-1)/n of the array, of a gather (n-1)/n.
    seconds: at the full speed of the links it crosses, nothing else on them.
  """

  wire_bytes: int
  seconds: float


@dataclasses.dataclass(frozen=True)
class Change:
  """Something that would make a step fit.

  Attributes:
    options: as typed on the command line.
    compiled: whether the compiler says so; otherwise it is a rule of thumb.
    peak_bytes, step_seconds, cost: what they would become; time and cost unknown for a rule of thumb.
    note: what it changes besides.
  """

  options: str
  compiled: bool
  peak_bytes: int
  step_seconds: float | None
  cost: float | None
  note: str


@dataclasses.dataclass(frozen=True)
class Plan:
  """A training step on a machine. Bytes, FLOPs and seconds are per device and step unless they say otherwise.

  Where the compiler gave up for lack of memory, whatever it would have said is None, and `fits` is False.

  Attributes:
    topology, chip, devices, chips: the machine; a chip is what is rented, a device what JAX sees.
    mesh, batch_size, microbatches, remat, steps: the run.
    fits: whether the step's peak fits into the memory.
    peak_bytes: compiled: arguments, results that replace none of them, temporaries and code together (on TPU the
      compiler's own sum); one byte more than there is where a compiler gave up and named no number.
    hbm_bytes: memory a program can have.
    memory: the peak by what it holds.
    parameters: how many numbers the model learns.
    flops: compiled: of matrix products and convolutions, loops counted as often as they run.
    model_flops: what the model's mathematics asks for (mmjax.models.flops).
    recompute_share: of the compiled FLOPs, those beyond the model's.
    memory_traffic: compiled: bytes to and from memory.
    collectives: compiled bytes, modelled seconds.
    collective_bytes: compiled: of all collectives together.
    compute_seconds, hbm_seconds, interconnect_seconds: modelled: each resource at its peak.
    compiler_seconds: the TPU compiler's estimated cycles, and its schedules' of hand-written kernels, at the chip's
      clock; None from other compilers.
    step_seconds: the larger of the compiler's time and the interconnect's; without the former, the roofline's largest.
    time_source: "compiler", or "roofline": a bound that no run reaches.
    samples_per_second: over all devices.
    mfu: model FLOPs over step_seconds times the peak.
    chip_hours, price, cost: of the whole run, at `price` US dollars a chip-hour.
    trace_seconds, compile_seconds: what planning took; `cached`: some time ago.
    notes: what was assumed.
    changes: what would make it fit, where it does not.
    kernels: (operation, times, seconds) the compiler thinks dearest.
    versions: of the compiler.
  """

  topology: str
  chip: str
  devices: int
  chips: int
  mesh: dict[str, int]
  batch_size: int
  microbatches: int
  remat: dict[str, str]
  steps: int
  fits: bool
  peak_bytes: int
  hbm_bytes: int
  memory: Memory
  parameters: int
  model_flops: float
  price: float
  trace_seconds: float
  compile_seconds: float
  cached: bool
  versions: dict[str, str]
  flops: int | None = None
  recompute_share: float | None = None
  memory_traffic: int | None = None
  collectives: tuple[Link, ...] = ()
  collective_bytes: int | None = None
  compute_seconds: float | None = None
  hbm_seconds: float | None = None
  interconnect_seconds: float | None = None
  compiler_seconds: float | None = None
  step_seconds: float | None = None
  time_source: Literal["compiler", "roofline"] | None = None
  samples_per_second: float | None = None
  mfu: float | None = None
  chip_hours: float | None = None
  cost: float | None = None
  kernels: tuple[tuple[str, int, float], ...] = ()
  notes: tuple[str, ...] = ()
  changes: tuple[Change, ...] = ()

  @property
  def margin_bytes(self) -> int:
    """Memory left over; negative where it does not fit."""
    return self.hbm_bytes - self.peak_bytes

  def to_json(self) -> dict[str, Any]:
    """Nested dictionaries and lists, ready for json.dump."""
    return cattrs.Converter().unstructure(self)
