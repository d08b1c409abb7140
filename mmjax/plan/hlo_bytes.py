"""Bytes that a compiled XLA program moves to and from memory, loops counted as often as they run.

The compiler's own count takes a loop's body once. Each fusion, copy or library call reads its operands and writes its
result once. What lies in a TPU's on-chip memory (`S(1)` in its layout) costs nothing, and of an array that is only
sliced, or updated in place, only the slice counts: otherwise a loop over stacked layers would pay for all of them in
every round.
"""

import math
import re

from mmjax.plan.hlo import COLLECTIVE, FUSIONS, walk
from mmjax.plan.hlo_text import Array, Computation, Instruction, Module

_FREE = frozenset(
  "parameter constant tuple get-tuple-element bitcast while conditional call call-start call-update call-done "
  "after-all partition-id replica-id opt-barrier iota async-start async-update async-done copy-done slice-done "
  "fusion-update fusion-done all-reduce-done all-gather-done collective-permute-done send-done recv-done domain "
  "add-dependency".split()
)
_PLACED = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\](\{[^}]*\})?")
_SLICES = ("dynamic-slice", "slice", "gather")


def memory_traffic(module: Module) -> int:
  """Bytes read from and written to a device's memory in one run."""
  total = 0
  for instruction, computation, trips, fused in walk(module, module.entry, 1, False):
    if not fused and instruction.opcode not in _FREE:
      total += trips * _traffic(module, instruction, computation)
  return total


def _traffic(module: Module, instruction: Instruction, computation: Computation) -> int:
  operands = [computation.instructions[name] for name in instruction.operands]
  if instruction.opcode in FUSIONS:
    inside = module.computations[instruction.called("calls")[0]]
    # The result of a start names the operands first.
    passed = sum(len(operand.arrays) for operand in operands) if instruction.opcode == "fusion-start" else 0
    return _fusion_reads(inside, operands) + _fusion_writes(inside, _placed(instruction)[passed:])
  written = _resident_bytes(instruction)
  if instruction.opcode == "custom-call" and "__cublas" in instruction.attributes:
    written = instruction.arrays[0].bytes  # the second result is room for the library, 32 MiB of it, hardly touched
  if instruction.opcode in _SLICES:
    return 2 * written
  if instruction.opcode == "dynamic-update-slice":
    return 2 * _resident_bytes(operands[1])
  if instruction.opcode == "slice-start":
    (_, from_memory), (piece, to_memory), *_ = _placed(instruction)
    return piece.bytes * (from_memory + to_memory)
  if instruction.opcode in ("copy-start", "collective-permute-start", "all-gather-start"):
    # The result's tuple names source and destination, and scratch; each is touched once.
    return written
  read = sum(map(_resident_bytes, operands))
  # Of an all-reduce's start, the result may name what it reads besides what it writes.
  return 2 * read if instruction.opcode == "all-reduce-start" else written + read


def _fusion_reads(inside: Computation, operands: list[Instruction]) -> int:
  """Operands whole, or as much of them as the fusion slices out."""
  total = 0
  for parameter in (i for i in inside.instructions.values() if i.opcode == "parameter"):
    operand = operands[int(parameter.literal)]
    users = _readers(inside, parameter.name)
    if users and all(user.opcode == "tuple" or COLLECTIVE.match(user.opcode) for user in users):
      continue  # handed on to the next kernel of a collective that this one only carries on
    if users and all(_is_partial(user, parameter.name, inside) for user in users):
      sliced = sum(array.bytes for user in users if user.opcode in _SLICES for array in user.arrays)
      total += min(sliced, _resident_bytes(operand))
    else:
      total += _resident_bytes(operand)
  return total


def _readers(inside: Computation, name: str) -> list[Instruction]:
  """What uses a value, looking through bitcasts."""
  users = []
  for instruction in inside.instructions.values():
    if name in instruction.operands:
      users += _readers(inside, instruction.name) if instruction.opcode == "bitcast" else [instruction]
  return users


def _is_partial(user: Instruction, name: str, inside: Computation) -> bool:
  first = inside.instructions[user.operands[0]]
  while first.opcode == "bitcast":
    first = inside.instructions[first.operands[0]]
  return first.name == name and user.opcode in (*_SLICES, "dynamic-update-slice")


def _fusion_writes(inside: Computation, results: list[tuple[Array, bool]]) -> int:
  """The results, or the slice that is written into an array updated in place."""
  root = inside.root
  roots = [inside.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
  total = 0
  for piece, result in zip(roots, results, strict=False):
    while piece.opcode == "bitcast":
      piece = inside.instructions[piece.operands[0]]
    array, resident = result
    if len(roots) > 1 and (piece.opcode == "parameter" or COLLECTIVE.match(piece.opcode)):
      continue
    if piece.opcode == "dynamic-update-slice":
      array = inside.instructions[piece.operands[1]].arrays[0]
    total += array.bytes if resident else 0
  return total


def _resident_bytes(instruction: Instruction) -> int:
  """Bytes of a result, without what lies on the chip."""
  return sum(array.bytes for array, resident in _placed(instruction) if resident)


def _placed(instruction: Instruction) -> list[tuple[Array, bool]]:
  """The result's arrays, and whether each lies in the device's memory."""
  found = _PLACED.findall(instruction.type_text)
  shapes = [
    (dtype, tuple(int(n.lstrip("<=")) for n in sizes.split(",") if n), layout) for dtype, sizes, layout in found
  ]
  return [(Array(dtype, shape), "S(" not in layout and math.prod(shape) > 0) for dtype, shape, layout in shapes]
