"""FLOPs of matrix products and convolutions in a compiled XLA program, for one instruction at a time."""

import math
import re

from mmjax.plan.hlo_text import Array, Computation, Instruction


def instruction_flops(instruction: Instruction, computation: Computation) -> int:
  """FLOPs of one instruction, two for each multiply-add.

  Only matrix products (also those of libraries), convolutions, and TPU kernels whose metadata give FLOPs are counted.
  Other instructions have 0.
  """
  if instruction.opcode == "dot":
    return _dot(instruction, computation, r"lhs_contracting_dims=\{([\d,]*)\}")
  if instruction.opcode == "convolution":
    return _convolution(instruction, computation)
  if "tpu_custom_call" in instruction.attributes:
    return int(instruction.attribute(r'kernel_metadata=\{[^}]*"flops":"(\d+)"') or 0)
  if instruction.opcode == "custom-call" and re.search(r"gemm|matmul", instruction.attributes):
    return _dot(instruction, computation, r'"lhs_contracting_dimensions":\[([\d",]*)\]')
  return 0


def _operand(instruction: Instruction, computation: Computation, number: int) -> Array:
  return computation.instructions[instruction.operands[number]].arrays[0]


def _dot(instruction: Instruction, computation: Computation, pattern: str) -> int:
  lhs = _operand(instruction, computation, 0)
  contracted = [int(n) for n in re.findall(r"\d+", instruction.attribute(pattern) or "")]
  return 2 * math.prod(instruction.arrays[0].shape) * math.prod(lhs.shape[d] for d in contracted)


def _convolution(instruction: Instruction, computation: Computation) -> int:
  """FLOPs of a convolution. Taps on padding and on the holes of dilation are not counted.

  The TPU compiler writes batched matrix products as dilated convolutions whose windows are almost only holes.
  """
  lhs, out = _operand(instruction, computation, 0), instruction.arrays[0]
  lhs_labels, out_labels = re.findall(r"(\w+)_\w+->(\w+)", instruction.attributes)[0]
  taps = 1
  for dimension, window in enumerate(_windows(instruction.attributes)):
    label = str(dimension)
    taps *= _taps(lhs.shape[lhs_labels.index(label)], out.shape[out_labels.index(label)], *window)
  channels = lhs.shape[lhs_labels.index("f")] // _count(instruction, "feature_group_count")
  batch = lhs.shape[lhs_labels.index("b")] // _count(instruction, "batch_group_count")
  return 2 * batch * channels * out.shape[out_labels.index("f")] * taps


def _count(instruction: Instruction, name: str) -> int:
  return int(instruction.attribute(rf"{name}=(\d+)") or 1)


def _windows(attributes: str) -> list[tuple[int, ...]]:
  """For each spatial dimension: (size, stride, padding before, dilation of the input, dilation of the window)."""
  found = re.search(r"window=\{([^}]*)\}", attributes)
  fields = dict(field.split("=", 1) for field in found.group(1).split()) if found else {}
  sizes = fields.get("size", "")
  if not sizes:
    return []
  count = len(sizes.split("x"))
  read = lambda name, default: fields.get(name, "x".join([default] * count)).split("x")
  columns = (
    sizes.split("x"),
    read("stride", "1"),
    read("pad", "0_0"),
    read("lhs_dilate", "1"),
    read("rhs_dilate", "1"),
  )
  return [tuple(int(value.split("_")[0]) for value in row) for row in zip(*columns, strict=True)]


def _taps(size: int, out: int, window: int, stride: int, before: int, holes: int, spread: int) -> int:
  """Number of (output position, window position) pairs of one dimension that read an element of the input."""
  return sum(
    0 <= place < size * holes and place % holes == 0
    for o in range(out)
    for w in range(window)
    for place in (o * stride - before + w * spread,)
  )
