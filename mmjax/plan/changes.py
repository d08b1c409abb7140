"""Search for the cheapest changes that make a step fit into memory.

Candidates are compiled as long as time allows. After that, rules of thumb decide.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator

from mmjax.experiment import Experiment
from mmjax.plan.result import Change, Plan
from mmjax.plan.topologies import Topology, known_topologies, parse_topology
from mmjax.plan.variants import (
  REMAT,
  options,
  piece_counts,
  remat_of,
  with_batch,
  with_mesh,
  with_microbatches,
  with_remat,
)

WANTED = 3
# Seconds for compiling candidates. After that, rules of thumb decide.
PATIENCE = 300.0
# Rough rules of thumb for each remat policy: the share of activations that are stored, and the share of time added.
_KEPT = {"none": 1.0, "dots": 0.6, "hidden": 0.45, "attention": 0.25, "full": 0.15}
_EXTRA_TIME = {"none": 0.0, "dots": 0.08, "hidden": 0.12, "attention": 0.25, "full": 0.33}
_FORWARD_AGAIN = 0.33  # share of time added by microbatches, which recompute the forward pass
_GATHERING = 0.03  # share of time added by each doubling of fsdp
# A change by rule of thumb is offered only if its estimated peak is below this share of the memory.
_ROOM = 0.9


@dataclasses.dataclass(frozen=True)
class _Candidate:
  experiment: Experiment
  topology: str
  peak_bytes: int
  extra: float
  note: str


def cheapest_changes(
  experiment: Experiment,
  plan: Plan,
  compile_plan: Callable[[Experiment, str], Plan],
  patience: float = PATIENCE,
) -> tuple[Change, ...]:
  """Find up to three changes that make an experiment fit.

  Args:
    experiment: an experiment that does not fit.
    plan: its plan.
    compile_plan: function (experiment, topology) -> Plan.
    patience: seconds after which no more candidates are compiled.
  Returns: changes that the compiler confirmed, cheapest first, then changes by rule of thumb.
  """
  began = time.monotonic()
  found: list[Change] = []
  guesses: list[Change] = []
  for candidate in sorted(_candidates(experiment, plan), key=lambda one: one.extra):
    typed = options(candidate.experiment, experiment, candidate.topology if candidate.topology != plan.topology else "")
    if len(found) == WANTED:
      break
    if candidate.peak_bytes > plan.hbm_bytes / _ROOM:
      continue  # far too large by the rule of thumb: do not compile it
    if time.monotonic() - began > patience:
      if candidate.peak_bytes < _ROOM * plan.hbm_bytes:
        guesses.append(Change(typed, False, candidate.peak_bytes, None, None, candidate.note))
      continue
    tried = compile_plan(candidate.experiment, candidate.topology)
    if tried.fits:
      found.append(Change(typed, True, tried.peak_bytes, tried.step_seconds, tried.cost, candidate.note))
  found.sort(key=lambda change: change.cost or 0.0)
  return (*found, *guesses[: WANTED - len(found)])


def _candidates(experiment: Experiment, plan: Plan) -> Iterator[_Candidate]:
  """Candidates: combinations of remat, fsdp and microbatches, then smaller batches, then larger machines."""
  devices, base = plan.devices, experiment.parallel
  policies = REMAT[REMAT.index(remat_of(experiment)) :]
  shards = [n for n in (base.fsdp * 2**k for k in range(11)) if devices % (n * base.model) == 0]
  pieces = [count for count in piece_counts(experiment, devices) if count % base.microbatches == 0]
  for policy in policies:
    for fsdp in dict.fromkeys((shards[0], shards[len(shards) // 2], shards[-1])) if shards else [base.fsdp]:
      for count in _few(pieces) or [base.microbatches]:
        changed = with_microbatches(with_mesh(with_remat(experiment, policy), fsdp=fsdp, model=base.model), count)
        if options(changed, experiment):
          yield _candidate(changed, plan.topology, experiment, plan, "")
  most = with_microbatches(with_remat(experiment, "full"), (pieces or [1])[-1])
  half = experiment.run.batch_size // 2
  while half >= devices * base.microbatches and half % (devices * base.microbatches) == 0:
    yield _candidate(with_batch(experiment, half), plan.topology, experiment, plan, "another batch: another result")
    half //= 2
  for topology in _larger(plan, most):
    yield _candidate(experiment, topology.name, experiment, plan, f"{topology.chips} chips")


def _few(counts: list[int]) -> list[int]:
  """Keep the first count, and then each that is at least twice the one kept before."""
  kept: list[int] = []
  for count in counts:
    if not kept or count >= 2 * kept[-1]:
      kept.append(count)
  return kept


def _candidate(changed: Experiment, topology: str, experiment: Experiment, plan: Plan, note: str) -> _Candidate:
  machine = parse_topology(topology)
  peak, extra = _estimate(changed, machine, experiment, plan)
  if changed.run.batch_size != experiment.run.batch_size:
    extra += 1.0  # after all candidates that do not change the result
  if topology != plan.topology:
    extra += 2.0 + machine.chips / plan.chips / 100
  return _Candidate(changed, topology, peak, extra, note)


def _estimate(changed: Experiment, machine: Topology, experiment: Experiment, plan: Plan) -> tuple[int, float]:
  """Estimate (peak bytes per device, share of time added) by rules of thumb, from the plan of the original."""
  memory, old, new = plan.memory, experiment.parallel, changed.parallel
  gradients = min(memory.parameters, memory.temporaries)
  state = memory.parameters + memory.optimizer + memory.average + gradients
  activations = memory.temporaries - gradients
  before, after = remat_of(experiment), remat_of(changed)
  rows = changed.run.batch_size / experiment.run.batch_size * plan.devices / machine.devices
  kept = _KEPT[after] / _KEPT[before] * old.microbatches / new.microbatches
  # Remat and microbatches always leave the embeddings and the working set of one block.
  activations = int(activations * rows * max(kept, 0.02))
  extra = _EXTRA_TIME[after] - _EXTRA_TIME[before] + _GATHERING * ((new.fsdp // old.fsdp).bit_length() - 1)
  if new.microbatches > old.microbatches:
    extra += (_FORWARD_AGAIN if old.microbatches == 1 else 0.0) + 0.005 * (new.microbatches / old.microbatches)
  return state * old.fsdp // new.fsdp + activations + int(memory.batch * rows) + memory.code, extra


def _larger(plan: Plan, experiment: Experiment) -> Iterator[Topology]:
  """Machines with more chips of the same type over which the batch can be divided."""
  for name in known_topologies():
    topology = parse_topology(name)
    shards = topology.devices * experiment.parallel.microbatches
    if topology.hardware.name == plan.chip and topology.chips > plan.chips and experiment.run.batch_size % shards == 0:
      yield topology
