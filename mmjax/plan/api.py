"""Function `plan`: makes a Plan from an experiment and the name of a machine."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

from mmjax.errors import ConfigError
from mmjax.experiment import Experiment, to_json
from mmjax.models.config import with_vocabulary
from mmjax.parallel.mesh import ParallelConfig
from mmjax.plan.compiler_cache import CompilerCache
from mmjax.plan.derive import derive
from mmjax.plan.process import compile_elsewhere
from mmjax.plan.result import Plan
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
  """Compile the training step of an experiment for a machine that need not be present.

  The compiler runs in a separate process.

  Args:
    experiment: the run.
    topology: name of the machine, such as v5e:16x16, v5p:4x4x8, h100x64 or cpu:8.
    price: US dollars per chip-hour. None: the list price.
    fresh: compile again even if the cache (the folder `plan` in `experiment.data.dir`) has the result.
    say: function that is called with the name of each phase, to show progress.
    script: the experiment script, if it defines classes or an optimiser that the step needs. It is run again in the
      planning process. None: the step needs nothing from a script.
  Returns: the plan.
  Raises:
    TopologyError: there is no such machine. The message lists the known ones.
    PlanError: the compiler failed, is not installed, or has the wrong version. The message gives the remedy.
    ConfigError: the batch, the mesh and the machine do not fit together.
  """
  machine = parse_topology(topology)
  experiment, notes = as_planned(experiment, machine)
  cache = CompilerCache(Path(experiment.data.dir) / "plan")
  facts = None if fresh else cache.read(experiment, machine, script)
  cached = facts is not None
  if facts is None:
    facts = compile_elsewhere(to_json(experiment), machine, say, script)
    cache.write(experiment, machine, facts, script)
  found = derive(facts, experiment, machine, price=price, cached=cached)
  return dataclasses.replace(found, notes=(*notes, *found.notes))


def as_planned(experiment: Experiment, topology: Topology) -> tuple[Experiment, tuple[str, ...]]:
  """Complete an experiment as training would on the machine.

  Training sets the vocabulary and the length of text towers from the tokenizer. A vocabulary that is not learned yet is
  assumed to reach its largest size. The mesh is changed to fit the machine.

  Returns: (experiment, notes on the changes of the mesh).
  """
  tokenizer, facts = experiment.data.tokenizer, {"max_length": experiment.data.tokenizer.max_length}
  # A learned vocabulary begins with the padding token and the end token. In a file they can have any id. No shape
  # depends on it.
  if not tokenizer.path:
    facts |= {"vocab_size": tokenizer.vocab_size, "pad_id": 0, "eos_id": 1}
  if tokenizer.mask_token:
    facts["mask_id"] = 2
  parallel, notes = fit_mesh(experiment.parallel, topology)
  model = with_vocabulary(experiment.model, facts)
  return dataclasses.replace(experiment, model=model, parallel=parallel), notes


def fit_mesh(parallel: ParallelConfig, topology: Topology) -> tuple[ParallelConfig, tuple[str, ...]]:
  """Change a mesh, which may have been made for another machine, so that it uses all devices of this one.

  Returns: (mesh, notes on the changes).
  Raises: ConfigError: parallel.model does not divide the number of devices.
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
