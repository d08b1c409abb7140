"""Search of the option `--find`: the largest batch, the fewest microbatches or the fastest mesh, by compiling."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from mmjax.errors import ConfigError
from mmjax.experiment import Experiment
from mmjax.models.config import towers
from mmjax.plan.result import Plan
from mmjax.plan.topologies import Topology, parse_topology
from mmjax.plan.variants import (
  REMAT,
  options,
  piece_counts,
  with_batch,
  with_mesh,
  with_microbatches,
  with_remat,
)

Goal = Literal["batch-size", "microbatches", "mesh"]
# The search for the largest batch stops when a batch larger by this share, or less, does not fit.
FINENESS = 1 / 16


@dataclasses.dataclass(frozen=True)
class Trial:
  """One compilation of a search: the command-line options and the result."""

  options: str
  fits: bool
  peak_bytes: int
  samples_per_second: float | None
  mfu: float | None


@dataclasses.dataclass(frozen=True)
class Search:
  """Result of a search.

  Attributes:
    goal: goal of the search.
    best: plan of the best experiment; None if nothing fits.
    options: command-line options that change the given experiment into the best one.
    trials: all compilations, in order.
  """

  goal: Goal
  best: Plan | None
  options: str
  trials: tuple[Trial, ...]

  def to_json(self) -> dict[str, Any]:
    """Make nested dictionaries of the best plan, with the search itself in the field `search`."""
    trials = [dataclasses.asdict(trial) for trial in self.trials]
    search = {"goal": self.goal, "options": self.options, "trials": trials}
    return (self.best.to_json() if self.best else {"fits": False}) | {"search": search}


def find(
  goal: Goal,
  experiment: Experiment,
  topology: str,
  compile_plan: Callable[[Experiment, str], Plan],
) -> Search:
  """Search for the best variant of an experiment on a machine.

  Args:
    goal: "batch-size" (the largest global batch that fits), "microbatches" (the fewest with which this batch fits), or
      "mesh" (the mesh and the remat policy with the highest predicted throughput).
    experiment: experiment to start from.
    topology: name of the machine.
    compile_plan: function (experiment, topology) -> Plan, such as mmjax.plan.plan.
  Returns: the result.
  Raises: TopologyError: there is no such machine. ConfigError: the batch cannot be divided over the devices
    ("microbatches").
  """
  machine = parse_topology(topology)
  trials: list[Trial] = []

  def attempt(changed: Experiment) -> Plan:
    found = compile_plan(changed, topology)
    name = options(changed, experiment) or "as it is"
    trials.append(Trial(name, found.fits, found.peak_bytes, found.samples_per_second, found.mfu))
    return found

  searches = {"batch-size": _largest_batch, "microbatches": _fewest_microbatches, "mesh": _fastest_mesh}
  best, changed = searches[goal](experiment, machine, attempt)
  return Search(goal, best, options(changed, experiment), tuple(trials))


Attempt = Callable[[Experiment], Plan]
Found = tuple[Plan | None, Experiment]


def _largest_batch(experiment: Experiment, machine: Topology, attempt: Attempt) -> Found:
  """Double or halve the batch until one fits and another does not, then search between them.

  Memory is almost linear in the batch. The next batch is the one at which the line through both peaks reaches the
  available memory.
  """
  unit = machine.devices // experiment.parallel.model * experiment.parallel.microbatches
  size = max(1, experiment.run.batch_size // unit)
  fits: tuple[int, Plan] | None = None
  over: tuple[int, Plan] | None = None
  while fits is None or over is None or over[0] - fits[0] > max(1, int(fits[0] * FINENESS)):
    plan = attempt(with_batch(experiment, size * unit))
    if plan.fits:
      fits = size, plan
    else:
      over = size, plan
    if fits is None:
      if size == 1:
        return None, experiment
      size //= 2
    elif over is None:
      size = 2 * fits[0]
    else:
      size = _between(fits, over, fits[1].hbm_bytes)
  return fits[1], with_batch(experiment, fits[0] * unit)


def _between(fits: tuple[int, Plan], over: tuple[int, Plan], room: int) -> int:
  """Size at which the line through both peaks reaches the memory, moved away from both ends."""
  (low, below), (high, above) = fits, over
  slope = (above.peak_bytes - below.peak_bytes) / (high - low)
  guess = low + (room - below.peak_bytes) / slope if slope > 0 else (low + high) / 2
  step = max(1, int(low * FINENESS))
  return min(max(int(guess), low + min(step, (high - low + 1) // 2)), high - 1)


def _fewest_microbatches(experiment: Experiment, machine: Topology, attempt: Attempt) -> Found:
  """Bisect the divisors of the number of rows on a device."""
  counts = piece_counts(experiment, machine.devices)
  if experiment.run.batch_size % (machine.devices // experiment.parallel.model):
    raise ConfigError(
      f"run.batch_size={experiment.run.batch_size} cannot be divided over the devices of {machine.name}; "
      f"use a multiple of {machine.devices // experiment.parallel.model}"
    )
  low, high, best, chosen = 0, len(counts) - 1, None, experiment
  while low <= high:
    middle = 0 if best is None and low == 0 and high == len(counts) - 1 else (low + high) // 2
    changed = with_microbatches(experiment, counts[middle])
    plan = attempt(changed)
    if plan.fits:
      best, chosen, high = plan, changed, middle - 1
    else:
      low = middle + 1
  return best, chosen


def _fastest_mesh(experiment: Experiment, machine: Topology, attempt: Attempt) -> Found:
  """Try, for each mesh, the remat policies in order, until one fits. Policies that recompute more are never faster."""
  best, chosen = None, experiment
  for fsdp, model in _meshes(experiment, machine):
    for policy in REMAT:
      changed = with_remat(with_mesh(experiment, fsdp=fsdp, model=model), policy)
      plan = attempt(changed)
      if plan.fits:
        if best is None or (plan.samples_per_second or 0) > (best.samples_per_second or 0):
          best, chosen = plan, changed
        break
  return best, chosen


def _meshes(experiment: Experiment, machine: Topology) -> list[tuple[int, int]]:
  """Meshes (fsdp, model) to try: replicas, parameters sharded over some or all devices, heads over two or four."""
  devices = machine.devices
  counts = [tower.num_heads for tower in towers(experiment.model).values() if hasattr(tower, "num_heads")]
  shards = [2**k for k in range(devices.bit_length()) if devices % 2**k == 0]
  heads = [m for m in (2, 4) if devices % m == 0 and all(count % m == 0 for count in counts)]
  wanted = [(1, 1), (shards[len(shards) // 2], 1), (shards[-1], 1), *((1, m) for m in heads)]
  rows = lambda fsdp, model: devices // model * experiment.parallel.microbatches
  return [mesh for mesh in dict.fromkeys(wanted) if experiment.run.batch_size % rows(*mesh) == 0]
