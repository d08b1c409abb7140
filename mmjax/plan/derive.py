"""Derivation of a Plan from the compiler's facts: rooflines, throughput, hours and cost."""

import dataclasses

from mmjax.experiment import Experiment
from mmjax.models.config import towers
from mmjax.plan.facts import Facts, Traffic
from mmjax.plan.hardware import Hardware
from mmjax.plan.result import Link, Memory, Plan
from mmjax.plan.topologies import Topology
from mmjax.plan.variants import tower_remat

_GPU_NOTE = "JAX uses only 75% of a GPU's memory by default: set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95"
_ROOFLINE_NOTE = "this compiler estimates no time: step time and MFU are bounds that no run reaches"


def derive(facts: Facts, experiment: Experiment, topology: Topology, *, price: float | None, cached: bool) -> Plan:
  """Make the plan of an experiment from the facts of its compiled step.

  Args:
    facts: facts from the compiler.
    experiment: the experiment that was compiled.
    topology: the machine.
    price: US dollars per chip-hour. None: the list price.
    cached: True if the facts were read from the cache.
  Returns: the plan. Its time, cost and traffic are None if the compiler gave up.
  """
  chip, run, model = topology.hardware, experiment.run, experiment.model
  memory = _memory(facts, chip)
  peak = facts.peak_bytes + memory.runtime if facts.peak_bytes else chip.hbm_bytes + 1
  plan = Plan(
    topology=topology.name,
    chip=chip.name,
    devices=topology.devices,
    chips=topology.chips,
    mesh=facts.mesh,
    batch_size=run.batch_size,
    microbatches=experiment.parallel.microbatches,
    remat={name: tower_remat(tower) for name, tower in towers(model).items()},
    steps=run.steps,
    fits=not facts.complaint and peak <= chip.hbm_bytes,
    peak_bytes=peak,
    hbm_bytes=chip.hbm_bytes,
    memory=memory,
    parameters=facts.parameters,
    model_flops=facts.model_flops / topology.devices,
    price=chip.price if price is None else price,
    trace_seconds=facts.trace_seconds,
    compile_seconds=facts.compile_seconds,
    cached=cached,
    versions=facts.versions,
    notes=_notes(facts, chip, peak),
  )
  return plan if facts.complaint else _with_times(plan, facts, topology)


def _with_times(plan: Plan, facts: Facts, topology: Topology) -> Plan:
  chip = topology.hardware
  links = tuple(link(traffic, topology) for traffic in facts.collectives)
  compute, memory = facts.flops / chip.flops, facts.memory_traffic / chip.hbm_bandwidth
  wires = sum(one.seconds for one in links)
  compiler = facts.cycles / chip.clock if facts.cycles and chip.clock else None
  step = max(compute, memory, wires) if compiler is None else max(compiler, wires)
  hours = plan.steps * step / 3600 * plan.chips
  return dataclasses.replace(
    plan,
    flops=facts.flops,
    recompute_share=max(0.0, 1 - plan.model_flops / facts.flops) if facts.flops else 0.0,
    memory_traffic=facts.memory_traffic,
    collectives=links,
    collective_bytes=sum(one.bytes for one in links),
    compute_seconds=compute,
    hbm_seconds=memory,
    interconnect_seconds=wires,
    compiler_seconds=compiler,
    step_seconds=step,
    time_source="roofline" if compiler is None else "compiler",
    samples_per_second=plan.batch_size / step,
    mfu=plan.model_flops / (step * chip.flops),
    chip_hours=hours,
    cost=hours * plan.price,
    kernels=tuple((name, times, cycles / (chip.clock or 1.0)) for name, times, cycles in facts.kernels),
  )


def link(traffic: Traffic, topology: Topology) -> Link:
  """Model the time of a collective: a ring algorithm, at the full speed of the links that it crosses."""
  n = max(2, traffic.group_size)
  share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0, "collective-broadcast": 1.0}
  wire = traffic.bytes * share.get(traffic.kind, (n - 1) / n)
  chip = topology.hardware
  if chip.node is None:
    seconds = wire / (chip.interconnect * _share_of_links(traffic, topology))
  elif traffic.span < chip.node:
    seconds = wire / chip.interconnect
  else:
    seconds = max(wire / chip.interconnect, wire / _ports(traffic, chip) / (chip.network or chip.interconnect))
  return Link(**dataclasses.asdict(traffic), wire_bytes=round(wire), seconds=seconds)


def _share_of_links(traffic: Traffic, topology: Topology) -> float:
  """Share of a torus chip's links that a collective uses.

  A permute uses one link. A group that fits in one dimension uses the two links of that dimension. A larger group uses
  all links.
  """
  dimensions = len(topology.grid)
  if traffic.kind == "collective-permute":
    return 1 / (2 * dimensions)
  return 1 / dimensions if traffic.group_size <= max(topology.grid) else 1.0


def _ports(traffic: Traffic, chip: Hardware) -> int:
  """Number of network ports that share the bytes leaving a node.

  This is the number of group members in the node. A permute uses one port.
  """
  if traffic.kind == "collective-permute" or chip.node is None:
    return 1
  stride = max(1, traffic.span // max(1, traffic.group_size - 1))
  return max(1, chip.node // stride)


def _memory(facts: Facts, chip: Hardware) -> Memory:
  results = facts.output_bytes - facts.alias_bytes
  compiled = facts.peak_bytes or chip.hbm_bytes + 1
  temporaries = max(0, compiled - facts.known_bytes - results - facts.code_bytes)
  return Memory(
    parameters=facts.parameter_bytes,
    optimizer=facts.optimizer_bytes,
    average=facts.average_bytes,
    batch=facts.batch_bytes,
    temporaries=temporaries,
    code=facts.code_bytes,
    outputs=results,
    runtime=chip.runtime_bytes + round(chip.runtime_share * temporaries),
  )


def _notes(facts: Facts, chip: Hardware, peak: int) -> tuple[str, ...]:
  notes = [_ROOFLINE_NOTE] if not facts.complaint and not facts.cycles else []
  if chip.platform == "cuda" and 0.75 < peak / chip.hbm_bytes <= 1:
    notes.append(_GPU_NOTE)
  if chip.platform == "cpu":
    notes.append("virtual devices share this machine's memory; speeds are nominal, see mmjax/plan/hardware.py")
  if facts.unknown_loops:
    notes.append(f"{facts.unknown_loops} loop(s) of unknown length are counted once")
  if facts.unknown_kernels:
    notes.append(f"{facts.unknown_kernels} hand-written kernel(s) of unknown time are not counted")
  if facts.complaint:
    notes.append(f"the compiler gave up: {facts.complaint}")
  return tuple(notes)
