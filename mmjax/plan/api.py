"""`plan`: an experiment and the name of a machine in, a Plan out."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, to_json
from mmjax.models.config import with_vocabulary
from mmjax.parallel.mesh import ParallelConfig
from mmjax.plan.cache import Cache
from mmjax.plan.derive import derive
from mmjax.plan.process import compile_elsewhere
from mmjax.plan.record import Plan
from mmjax.plan.topologies import Topology, parse_topology


def plan(
  experiment: Experiment,
  topology: str,
  *,
  price: float | None = None,
  fresh: bool = False,
  say: Callable[[str], None] = lambda phase: None,
  script: Path | None = None,
) -> Plan:
  """Compiles the step that training runs for a machine one need not have, in a process of its own.

  Args:
    experiment: the run.
    topology: v5e:16x16, v5p:4x4x8, h100x64, cpu:8, ...
    price: US dollars a chip-hour, in place of the list price.
    fresh: compile although the cache (`experiment.data.dir`/plan) knows the answer.
    say: told what is going on.
    script: the experiment script whose classes or optimiser the step needs; it is run again to compile the step.
  Raises:
    TopologyError: no such machine; the message lists those known.
    PlanError: the compiler is not installed, or not as JAX needs it (the message says how to mend it), or it failed.
    ConfigError: batch, mesh and machine do not fit each other.
  """
  machine = parse_topology(topology)
  experiment, notes = as_planned(experiment, machine)
  cache = Cache(Path(experiment.data.dir) / "plan")
  facts = None if fresh else cache.read(experiment, machine, script)
  cached = facts is not None
  if facts is None:
    facts = compile_elsewhere(to_json(experiment), machine, say, script)
    cache.write(experiment, machine, facts, script)
  found = derive(facts, experiment, machine, price=price, cached=cached)
  return dataclasses.replace(found, notes=(*notes, *found.notes))


def as_planned(experiment: Experiment, topology: Topology) -> tuple[Experiment, tuple[str, ...]]:
  """The experiment as training would run it on the machine, and what had to be assumed.

  Training gives text towers the tokenizer's vocabulary and length. A vocabulary that is yet to be learnt is taken to
  become as large as it may. The mesh follows the machine.
  """
  tokenizer, facts = experiment.data.tokenizer, {"max_length": experiment.data.tokenizer.max_length}
  if not tokenizer.path:  # in a file, padding and end can be any ids, which matter to no shape
    facts |= {"vocab_size": tokenizer.vocab_size, "pad_id": 0, "eos_id": 1}
  if tokenizer.mask_token:
    facts["mask_id"] = 2
  parallel, notes = fit_mesh(experiment.parallel, topology)
  model = with_vocabulary(experiment.model, facts)
  return dataclasses.replace(experiment, model=model, parallel=parallel), notes


def fit_mesh(parallel: ParallelConfig, topology: Topology) -> tuple[ParallelConfig, tuple[str, ...]]:
  """A mesh that may have been made for another machine, changed to use all of this one; and what was changed.

  Raises: ConfigError where parallel.model does not divide the devices.
  """
  devices, notes = topology.devices, []
  if devices % parallel.model:
    model = max(n for n in range(1, parallel.model) if devices % n == 0)
    raise ConfigError(
      f"parallel.model={parallel.model} does not divide the {devices} devices of {topology.name}; choose a divisor, "
      f"such as --parallel.model {model}"
    )
  fsdp = math.gcd(parallel.fsdp, devices // parallel.model)
  if fsdp != parallel.fsdp:
    notes.append(
      f"parallel.fsdp={parallel.fsdp} does not divide {topology.name}: train there with --parallel.fsdp {fsdp}"
    )
  data = devices // (fsdp * parallel.model)
  if parallel.data not in (-1, data):
    notes.append(f"parallel.data={parallel.data} became {data}, to use all of {topology.name}")
  return dataclasses.replace(parallel, fsdp=fsdp, data=parallel.data if parallel.data == data else -1), tuple(notes)
