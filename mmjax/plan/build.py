"""Compilation of the training step for devices that are not present. It runs in the planning process."""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax.data.batching import row_shapes
from mmjax.experiment import Experiment
from mmjax.kinds import Kind
from mmjax.models.config import image_size
from mmjax.parallel.mesh import batch_sharding
from mmjax.plan.axes import by_axes
from mmjax.plan.compilers import COMPILER_PACKAGES, package_version
from mmjax.plan.facts import Facts
from mmjax.plan.hlo import HloCost, analyse
from mmjax.plan.hlo_bytes import memory_traffic
from mmjax.plan.hlo_text import Module, parse
from mmjax.plan.model_flops import model_flops
from mmjax.plan.schedules import read_schedules
from mmjax.train.setup import Training, prepare

_UNITS = {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_KERNELS = 12


def compile_step(
  experiment: Experiment,
  devices: Sequence[Any],
  say: Callable[[str], None],
  *,
  schedules: Path | None = None,
  bytes_per_cycle: float = math.inf,
  core: Any = None,
  kinds: tuple[type[Kind], ...] = (),
) -> Facts:
  """Compile the training step of an experiment and collect what the compiler reports.

  Args:
    experiment: the run; its mesh must fit the devices.
    devices: devices of the machine. They need not be attached.
    say: function that is called with the name of each phase, to show progress.
    schedules: folder to which the compiler writes the schedules of kernels (see mmjax.plan.schedules). None: it does
      not.
    bytes_per_cycle: memory bandwidth of a device (see mmjax.plan.hlo.analyse).
    core: the script's own optimiser transformation, as in mmjax.cli.main.
    kinds: the classes that the script defines, as in mmjax.cli.main.
  Returns: the facts. If the step needs more memory than a device has, the compiler stops and `complaint` is set.
  Raises: ConfigError: the experiment does not fit the devices.
  """
  began = time.monotonic()
  say("tracing")
  training = prepare(experiment, core, devices, kinds)
  state = jax.tree.map(_placed, training.shapes, training.shardings)
  batch = batch_arguments(training)
  lowered = training.step.lower(state, batch)
  traced = time.monotonic()
  facts = _before_compiling(training, batch, traced - began)
  say("compiling")
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    if not lacks_memory(str(error)):
      raise
    seconds = time.monotonic() - traced
    needed = needed_bytes(str(error), facts.known_bytes)
    return dataclasses.replace(facts, peak_bytes=needed, complaint=_first_words(str(error)), compile_seconds=seconds)
  facts = dataclasses.replace(facts, compile_seconds=time.monotonic() - traced)
  say("reading the program")
  text = compiled.as_text()
  cost = analyse(text, {} if schedules is None else read_schedules(schedules), bytes_per_cycle=bytes_per_cycle)
  return _after_compiling(facts, compiled.memory_analysis(), parse(text), cost, devices[0].platform)


def batch_arguments(training: Training) -> dict[str, Any]:
  """Shapes of the global batch that the loader of this run yields. With streams, one batch of shapes per stream."""
  sharding = batch_sharding(training.mesh)
  batches = {name: batch_shapes(each, sharding) for name, each in training.experiment.by_stream().items()}
  return batches if training.experiment.data.streams else batches[""]


def batch_shapes(experiment: Experiment, sharding: Any = None) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes of the global batch of a run without streams."""
  rows, shapes = experiment.run.batch_size, row_shapes(experiment.data, image_size(experiment.model))
  return {
    name: jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding) for name, (shape, dtype) in shapes.items()
  }


def lacks_memory(message: str) -> bool:
  """True if a compiler's error says that the step needs more memory than a device has.

  The error "Ran out of memory in memory space vmem" is not one of these. It is an error in a kernel that uses too much
  on-chip memory.
  """
  return "RESOURCE_EXHAUSTED" in message and "memory space vmem" not in message


def needed_bytes(message: str, arguments: int) -> int:
  """Read from a TPU compiler's error how many bytes the program needs.

  Two forms are known: "Used 17.51G of 15.75G hbm. Exceeded hbm capacity by 1.76G", and "total memory required for HLO
  temporaries (63.59G) exceeds available HBM (15.75G)". The second does not count the arguments of the step.

  Args:
    message: the error.
    arguments: bytes of the step's arguments.
  Returns: bytes, or 0 if the error gives no number.
  """
  number = r"([\d.]+)([KMGTB]?)"
  total = re.search(rf"of {number} hbm\. Exceeded hbm capacity by {number}\.", message)
  parts = re.search(rf"HLO temporaries \({number}\)", message)
  if total is not None:
    return _count(total[1], total[2]) + _count(total[3], total[4])
  return 0 if parts is None else _count(parts[1], parts[2]) + arguments


def _count(number: str, unit: str) -> int:
  return int(float(number.rstrip(".")) * _UNITS[unit])


def _peak(memory: Any, platform: str) -> int:
  """Peak memory of a compiled step, as defined in `Facts.peak_bytes`."""
  if platform == "tpu":
    return memory.peak_memory_in_bytes
  results = memory.output_size_in_bytes - memory.alias_size_in_bytes
  return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes


def _before_compiling(training: Training, batch: dict[str, Any], seconds: float) -> Facts:
  shapes, shardings = training.shapes, training.shardings
  return Facts(
    mesh=dict(training.mesh.shape),
    parameters=sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes.params)),
    model_flops=model_flops(training.experiment),
    parameter_bytes=_bytes(shapes.params, shardings.params),
    optimizer_bytes=_bytes(shapes.opt_state, shardings.opt_state),
    average_bytes=_bytes(shapes.ema, shardings.ema),
    batch_bytes=sum(_leaf_bytes(leaf, leaf.sharding) for leaf in jax.tree.leaves(batch)),
    trace_seconds=seconds,
    compile_seconds=0.0,
    versions=_versions(),
  )


def _after_compiling(facts: Facts, memory: Any, module: Module, cost: HloCost, platform: str) -> Facts:
  return dataclasses.replace(
    facts,
    argument_bytes=memory.argument_size_in_bytes,
    output_bytes=memory.output_size_in_bytes,
    alias_bytes=memory.alias_size_in_bytes,
    temporary_bytes=memory.temp_size_in_bytes,
    code_bytes=memory.generated_code_size_in_bytes,
    peak_bytes=_peak(memory, platform),
    flops=cost.flops,
    cycles=cost.cycles,
    memory_traffic=memory_traffic(module),
    collectives=by_axes(cost.collectives, facts.mesh),
    unknown_loops=len(cost.unknown_loops),
    unknown_kernels=len(cost.unknown_kernels),
    kernels=tuple((kernel.source, kernel.trips, kernel.cycles) for kernel in cost.kernels[:_KERNELS]),
  )


def _placed(shape: Any, sharding: Any) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)


def _bytes(shapes: Any, shardings: Any) -> int:
  return sum(map(_leaf_bytes, jax.tree.leaves(shapes), jax.tree.leaves(shardings)))


def _leaf_bytes(leaf: Any, sharding: Any) -> int:
  return int(np.prod(sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize


def _versions() -> dict[str, str]:
  found = {package: package_version(package) for package in ("jax", "jaxlib", *COMPILER_PACKAGES)}
  return {package: version for package, version in found.items() if version is not None}


def _first_words(message: str) -> str:
  return " ".join(message.split())[:600]
