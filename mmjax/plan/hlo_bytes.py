"""Bytes that a compiled XLA program moves to and from memory, multiplied by loop trip counts.

The compiler's own count includes the body of a loop only once. Here each fusion, copy or library call reads its
operands and writes its result once. Arrays in a TPU's on-chip memory (`S(1)` in the layout) are not counted. Of an
array that is only sliced or updated in place, only the slice is counted. Otherwise a loop over stacked layers would
count all layers in each iteration.
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
  """Bytes that one run reads from and writes to the memory of a device."""
  total = 0
  for instruction, computation, trips, fused in walk(module, module.entry, 1, False):
    if not fused and instruction.opcode not in _FREE:
      total += trips * _traffic(module, instruction, computation)
  return total


def _traffic(module: Module, instruction: Instruction, computation: Computation) -> int:
  operands = [computation.instructions[name] for name in instruction.operands]
  if instruction.opcode in FUSIONS:
    inside = module.computations[instruction.called("calls")[0]]
    # The result type of a start lists the operands first.
    passed = sum(len(operand.arrays) for operand in operands) if instruction.opcode == "fusion-start" else 0
    return _fusion_reads(inside, operands) + _fusion_writes(inside, _placed(instruction)[passed:])
  written = _resident_bytes(instruction)
  if instruction.opcode == "custom-call" and "__cublas" in instruction.attributes:
    written = instruction.arrays[0].bytes  # the second result is the library's 32 MiB workspace, hardly used
  if instruction.opcode in _SLICES:
    return 2 * written
  if instruction.opcode == "dynamic-update-slice":
    return 2 * _resident_bytes(operands[1])
  if instruction.opcode == "slice-start":
    (_, from_memory), (piece, to_memory), *_ = _placed(instruction)
    return piece.bytes * (from_memory + to_memory)
  if instruction.opcode in ("copy-start", "collective-permute-start", "all-gather-start"):
    # The result's tuple holds source, destination and scratch. Each is read or written once.
    return written
  read = sum(map(_resident_bytes, operands))
  # The result of an all-reduce's start may list its inputs besides its outputs.
  return 2 * read if instruction.opcode == "all-reduce-start" else written + read


def _fusion_reads(inside: Computation, operands: list[Instruction]) -> int:
  """Bytes of the operands that a fusion reads. Of an operand that it only slices, the slices count."""
  total = 0
  for parameter in (i for i in inside.instructions.values() if i.opcode == "parameter"):
    operand = operands[int(parameter.literal)]
    users = _readers(inside, parameter.name)
    if users and all(user.opcode == "tuple" or COLLECTIVE.match(user.opcode) for user in users):
      continue  # only passed to the next kernel of a split collective
    if users and all(_is_partial(user, parameter.name, inside) for user in users):
      sliced = sum(array.bytes for user in users if user.opcode in _SLICES for array in user.arrays)
      total += min(sliced, _resident_bytes(operand))
    else:
      total += _resident_bytes(operand)
  return total


def _readers(inside: Computation, name: str) -> list[Instruction]:
  """Instructions that use a value, directly or through bitcasts."""
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
  """Bytes of the results that a fusion writes. Of an array that is updated in place, the written slice counts."""
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
  """Bytes of a result, without arrays in on-chip memory."""
  return sum(array.bytes for array, resident in _placed(instruction) if resident)


def _placed(instruction: Instruction) -> list[tuple[Array, bool]]:
  """Arrays of the result, each with True if it is in the device's memory and not in on-chip memory."""
  found = _PLACED.findall(instruction.type_text)
  shapes = [
    (dtype, tuple(int(n.lstrip("<=")) for n in sizes.split(",") if n), layout) for dtype, sizes, layout in found
  ]
  return [(Array(dtype, shape), "S(" not in layout and math.prod(shape) > 0) for dtype, shape, layout in shapes]
