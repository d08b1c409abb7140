"""Plan of a training step on a machine: memory, work, time and cost, and the source of each number."""

import dataclasses
from typing import Any, Literal

import cattrs

from mmjax.plan.facts import Traffic


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on one device while a step runs, by content.

  `average` is the moving average of the parameters. `temporaries` are activations, gradients and scratch. `outputs` are
  results that are not aliased to arguments. `runtime` is memory that the compiler does not count.
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
  """Traffic, with its bytes and time on the interconnect.

  Attributes:
    wire_bytes: bytes that a device sends in a step: 2 (n-1)/n of the array for an all-reduce, (n-1)/n for a gather.
    seconds: time at the full speed of the links, without other traffic.
  """

  wire_bytes: int
  seconds: float


@dataclasses.dataclass(frozen=True)
class Change:
  """A change that makes a step fit.

  Attributes:
    options: command-line options of the change.
    compiled: True if the compiler confirmed it, False if it is a rule of thumb.
    peak_bytes, step_seconds, cost: values after the change. Time and cost are None for a rule of thumb.
    note: other effects of the change.
  """

  options: str
  compiled: bool
  peak_bytes: int
  step_seconds: float | None
  cost: float | None
  note: str


@dataclasses.dataclass(frozen=True)
class Plan:
  """Plan of a training step on a machine.

  Bytes, FLOPs and seconds are per device and step, unless an attribute says otherwise. "Compiled" numbers come from the
  compiler. "Modelled" numbers are computed from published peaks. If the compiler gave up for lack of memory, `fits` is
  False and all numbers that it would have given are None.

  Attributes:
    topology, chip, devices, chips: the machine. A chip is the unit of rent, and a device is the unit that JAX counts.
    mesh, batch_size, microbatches, remat, steps: the run.
    fits: True if the peak fits into the memory.
    peak_bytes: compiled: arguments, outputs that are not aliased to arguments, temporaries and code (on TPU, the peak
      that the compiler gives), and the modelled `memory.runtime`. If a compiler gave up without a number, one byte more
      than hbm_bytes.
    hbm_bytes: memory that a program can use.
    memory: the peak by content.
    parameters: number of learned parameters of the model.
    flops: compiled: FLOPs of matrix products and convolutions, multiplied by loop trip counts.
    model_flops: FLOPs of the model without recomputation (mmjax.plan.model_flops).
    recompute_share: share of the compiled FLOPs that exceeds the model's FLOPs.
    memory_traffic: compiled: bytes to and from memory.
    collectives: compiled bytes, modelled seconds.
    collective_bytes: compiled: bytes of all collectives.
    compute_seconds, hbm_seconds, interconnect_seconds: modelled: time of each resource at its peak.
    compiler_seconds: the TPU compiler's cycles (estimates, and schedules of hand-written kernels) at the chip's clock.
      None for other compilers.
    step_seconds: the larger of compiler_seconds and interconnect_seconds. Without compiler_seconds, the largest of
      compute_seconds, hbm_seconds and interconnect_seconds.
    time_source: "compiler", or "roofline" for a bound that no run reaches.
    samples_per_second: samples per second over all devices.
    mfu: model_flops / (step_seconds x peak FLOP/s).
    chip_hours, price, cost: chip-hours and cost of the whole run, at `price` US dollars per chip-hour.
    trace_seconds, compile_seconds: duration of tracing and compiling.
    cached: True if the facts, with these durations, were read from the cache.
    notes: assumptions and warnings.
    changes: changes that make the step fit, if it does not.
    kernels: (operation, runs, seconds) of the instructions that the compiler estimates as the most expensive.
    versions: versions of JAX and of the compiler.
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
    """Memory that is left; negative if the step does not fit."""
    return self.hbm_bytes - self.peak_bytes

  def to_json(self) -> dict[str, Any]:
    """Make nested dictionaries and lists for json.dump."""
    return cattrs.Converter().unstructure(self)
