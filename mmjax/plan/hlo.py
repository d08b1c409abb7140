"""Cost of a compiled step, read from XLA's text: cycles, FLOPs and collectives, multiplied by loop trip counts."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

from mmjax.plan.hlo_flops import instruction_flops
from mmjax.plan.hlo_groups import Groups, replica_groups
from mmjax.plan.hlo_text import Computation, Instruction, Module, parse
from mmjax.plan.schedules import base_name

COLLECTIVE = re.compile(
  r"(all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast)(-start)?$"
)
FUSIONS = ("fusion", "fusion-start")  # the second runs on another stream of a GPU
_ESTIMATE = re.compile(r'"estimated_cycles":"?(\d+)')
_NO_ESTIMATE = 2**63 - 1  # means "no estimate", for work of the SparseCores (v5p, v6e, tpu7x)
_PROGRAMS = r'"programs":"(\d+)"'  # in the metadata of mmjax's kernels (mmjax.nn.tpu.kernel_metadata)


@dataclasses.dataclass(frozen=True)
class Collective:
  """All collectives of one kind over the same groups of devices.

  Attributes:
    kind: all-reduce, all-gather, reduce-scatter, all-to-all, collective-permute, ...
    groups: device numbers of each group (positions in the mesh, row-major). For a permute, its chains.
    count: number of runs in a step.
    bytes: bytes of the whole array, per step and device: the output of an all-gather, the input of a reduce-scatter, or
      the input of an all-reduce or a permute, which is as large as the output. A ring algorithm sends (n-1)/n of it
      over each link, and for an all-reduce twice that.
  """

  kind: str
  groups: Groups
  count: int
  bytes: int

  @property
  def group_size(self) -> int:
    """Number of devices in the largest group."""
    return max(map(len, self.groups), default=1)


@dataclasses.dataclass(frozen=True)
class Kernel:
  """One instruction with a known number of cycles.

  Attributes:
    name: name in the HLO text.
    source: the JAX operation that it was compiled from.
    trips: number of runs in a step.
    cycles: cycles of all runs together.
  """

  name: str
  source: str
  trips: int
  cycles: int


@dataclasses.dataclass(frozen=True)
class HloCost:
  """Cost of one run of a compiled program on one device.

  Attributes:
    cycles: sum of the TPU compiler's estimates and of its schedules of hand-written kernels. 0 for programs of other
      compilers. Collectives have no estimate.
    flops: FLOPs of matrix products and convolutions.
    collectives: collectives by kind and groups, largest bytes first.
    kernels: the instructions that `cycles` sums, most cycles first.
    unknown_loops: loops whose trip count could not be read. They count as one iteration.
    unknown_kernels: hand-written TPU kernels whose time is unknown. They count as 0 cycles.
  """

  cycles: int
  flops: int
  collectives: tuple[Collective, ...]
  kernels: tuple[Kernel, ...]
  unknown_loops: tuple[str, ...]
  unknown_kernels: tuple[str, ...]


def analyse(hlo_text: str, schedules: Mapping[str, int] = {}, *, bytes_per_cycle: float = math.inf) -> HloCost:
  """Compute the cost of a program that was compiled for TPU, GPU or CPU.

  Args:
    hlo_text: the result of `compiled.as_text()`.
    schedules: cycles of one program of each hand-written TPU kernel (see mmjax.plan.schedules.read_schedules).
    bytes_per_cycle: memory bandwidth. A hand-written kernel takes at least the time to read and write its arrays once.
  Returns: the cost.
  Raises: ValueError: the text is not a compiled program.
  """
  module = parse(hlo_text)
  flops, kernels, unknown, unscheduled = 0, [], [], []
  begun = _begun_apart(module)
  traffic: dict[tuple[str, Groups], list[int]] = collections.defaultdict(lambda: [0, 0])
  for instruction, computation, trips, fused in walk(module, module.entry, 1, False):
    flops += trips * instruction_flops(instruction, computation)
    cycles = _estimate(instruction) if not fused else 0
    if "tpu_custom_call" in instruction.attributes:
      programs = int(instruction.attribute(_PROGRAMS) or 0)
      scheduled = programs * schedules.get(base_name(instruction.name), 0)
      cycles = max(scheduled, round(_touched(instruction, computation) / bytes_per_cycle)) if scheduled else 0
      unscheduled += [] if cycles else [instruction.name]
    if cycles:
      source = instruction.attribute(r'op_name="([^"]*)"') or instruction.opcode
      kernels.append(Kernel(instruction.name, source, trips, trips * cycles))
    found = COLLECTIVE.match(instruction.opcode)
    if found and not _is_step(instruction, computation, begun):
      groups = replica_groups(instruction.attributes, module.devices)
      total = traffic[found.group(1), groups]
      total[0] += trips
      total[1] += trips * _payload(found.group(1), instruction, computation, groups)
    if instruction.opcode == "while" and _trip_count(module, computation, instruction) is None:
      unknown.append(instruction.name)
  records = [Collective(kind, groups, count, size) for (kind, groups), (count, size) in traffic.items()]
  return HloCost(
    cycles=sum(kernel.cycles for kernel in kernels),
    flops=flops,
    collectives=tuple(sorted(records, key=lambda record: -record.bytes)),
    kernels=tuple(sorted(kernels, key=lambda kernel: -kernel.cycles)),
    unknown_loops=tuple(unknown),
    unknown_kernels=tuple(unscheduled),
  )


def _estimate(instruction: Instruction) -> int:
  """Cycles by the compiler's estimate; 0 if there is none."""
  cycles = int(instruction.attribute(_ESTIMATE.pattern) or 0)
  return cycles if cycles < _NO_ESTIMATE else 0


def _touched(kernel: Instruction, computation: Computation) -> int:
  """Bytes of the operands and results of a kernel, each counted once."""
  operands = (computation.instructions[name] for name in set(kernel.operands))
  return sum(array.bytes for instruction in (kernel, *operands) for array in instruction.arrays)


def walk(
  module: Module, computation: Computation, trips: int, fused: bool
) -> Iterator[tuple[Instruction, Computation, int, bool]]:
  """Iterate over the instructions that run.

  All branches of a conditional are included. The scalar functions of reductions are not.

  Args:
    module: the program.
    computation: computation to begin with.
    trips: number of runs of `computation`.
    fused: True if `computation` is part of a fusion.
  Returns: an iterator over (instruction, its computation, number of runs, True if it is part of a fusion).
  """
  for instruction in computation.instructions.values():
    yield instruction, computation, trips, fused
    if instruction.opcode == "while":
      inner = trips * (_trip_count(module, computation, instruction) or 1)
      names = instruction.called("body", "condition")
    else:
      inner, names = trips, _callees(instruction)
    for name in names:
      yield from walk(module, module.computations[name], inner, fused or instruction.opcode in FUSIONS)


def _callees(instruction: Instruction) -> tuple[str, ...]:
  match instruction.opcode:
    case "fusion" | "fusion-start" | "async-start":
      return instruction.called("calls")
    case "call" | "call-start":  # the second runs on another core, such as a SparseCore
      return instruction.called("to_apply")
    case "conditional":
      return instruction.called("branch_computations", "true_computation", "false_computation")
  return ()


def _begun_apart(module: Module) -> frozenset[str | None]:
  """Channels of the collectives that the TPU compiler splits over several kernels: a first, further ones, and a last.

  Each of these kernels names the collective again, also inside loops.
  """
  beginnings = (c for c in module.computations.values() if _begins(c))
  return frozenset(_channel(i) for c in beginnings for i in c.instructions.values() if COLLECTIVE.match(i.opcode))


def _begins(computation: Computation) -> bool:
  return any("AsyncCollectiveStart" in i.attributes for i in computation.instructions.values())


def _is_step(instruction: Instruction, computation: Computation, begun: frozenset[str | None]) -> bool:
  channel = _channel(instruction)
  return channel is not None and channel in begun and not _begins(computation)


def _channel(instruction: Instruction) -> str | None:
  return instruction.attribute(r"\bchannel_id=(\d+)")


def _payload(kind: str, instruction: Instruction, computation: Computation, groups: Groups) -> int:
  operands = (computation.instructions[name] for name in instruction.operands)
  size = sum(array.bytes for operand in operands for array in operand.arrays)
  return size * max(map(len, groups), default=1) if kind == "all-gather" else size


def _trip_count(module: Module, computation: Computation, loop: Instruction) -> int | None:
  """Number of iterations of a loop, from the compiler's note or from a condition that compares a counter with a bound.

  The counter is assumed to increase by one, as in all loops that jax.lax makes. None if the number is not found.
  """
  if noted := loop.attribute(r'"known_trip_count":\{"n":"(\d+)"'):
    return int(noted)
  condition = module.computations[loop.called("condition")[0]]
  test, compare = condition.root, condition.root
  if test.opcode == "fusion":
    compare = module.computations[test.called("calls")[0]].root
  direction = compare.attribute(r"direction=(\w+)")
  begin = computation.instructions[loop.operands[0]]
  if compare.opcode != "compare" or direction not in ("LT", "LE", "NE"):
    return None
  counter, bound = (_value(condition, name, begin, computation) for name in test.operands[:2])
  return None if counter is None or bound is None else max(0, bound - counter + (direction == "LE"))


def _value(condition: Computation, name: str, begin: Instruction, outside: Computation) -> int | None:
  """Integer in a loop's condition: a constant, or the initial value of an element of the loop's state."""
  instruction = condition.instructions[name]
  while instruction.opcode in ("copy", "bitcast", "copy-done", "copy-start"):
    instruction = condition.instructions[instruction.operands[0]]
  if instruction.opcode == "constant":
    return int(instruction.literal) if re.fullmatch(r"-?\d+", instruction.literal) else None
  if instruction.opcode != "get-tuple-element" or condition is outside or begin.opcode != "tuple":
    return None
  return _value(outside, begin.operands[int(instruction.attribute(r"index=(\d+)") or 0)], begin, outside)
