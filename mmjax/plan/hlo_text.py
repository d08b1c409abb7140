"""Reads the text of a compiled XLA program (HLO) into computations and instructions."""

import dataclasses
import functools
import re

# bits per element; names as in XLA's PrimitiveType, other types (token, opaque) take no room
_BITS = {
  **{"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128},
  **{f"{sign}{bits}": bits for sign in "su" for bits in (1, 2, 4, 8, 16, 32, 64)},
}
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\]")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_OPCODE = re.compile(r" ([a-z][a-z\d\-]*)\(")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) (\(.*\) -> .*)?\{$")
_BROKEN = re.compile(r"kernel_metadata=\{[^}]*\}")  # the one thing that is written over several lines
_OPERAND = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Array:
  """An array's element type and dimensions."""

  dtype: str
  shape: tuple[int, ...]

  @property
  def bytes(self) -> int:
    count = 1
    for size in self.shape:
      count *= size
    bits = 8 if self.dtype.startswith("f8") else _BITS.get(self.dtype, 0)
    return -(-count * bits // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    type_text: the result's type as written.
    operands: names of instructions of the same computation.
    literal: what stands between the parentheses (the value of a constant, the number of a parameter).
    attributes: everything after them.
  """

  name: str
  opcode: str
  type_text: str
  operands: tuple[str, ...]
  literal: str
  attributes: str
  is_root: bool

  @functools.cached_property
  def arrays(self) -> tuple[Array, ...]:
    """The result's arrays, those of a tuple in order."""
    return tuple(
      Array(dtype, tuple(int(n.lstrip("<=")) for n in dims.split(",") if n))
      for dtype, dims in _ARRAY.findall(self.type_text)
    )

  def attribute(self, pattern: str) -> str | None:
    """The first group of `pattern` in the attributes."""
    found = re.search(pattern, self.attributes)
    return found.group(1) if found else None

  def called(self, *keys: str) -> tuple[str, ...]:
    """Names of the computations given by attributes such as `calls`, `body` and `condition`."""
    names: list[str] = []
    for key in keys:
      value = self.attribute(rf"\b{key}=(\{{[^}}]*\}}|%?[\w.\-]+)")
      names += [name.strip(" %") for name in (value or "").strip("{}").split(",") if name]
    return tuple(names)


@dataclasses.dataclass(frozen=True)
class Computation:
  """Instructions by name, in order."""

  instructions: dict[str, Instruction]

  @property
  def root(self) -> Instruction:
    last = next(reversed(self.instructions.values()))
    return next((i for i in self.instructions.values() if i.is_root), last)


@dataclasses.dataclass(frozen=True)
class Module:
  """A compiled program.

  Attributes:
    computations: by name.
    entry: where it begins.
    devices: partitions x replicas.
  """

  computations: dict[str, Computation]
  entry: Computation
  devices: int


def parse(text: str) -> Module:
  """Reads what `compiled.as_text()` gave. Raises ValueError where it has no entry computation."""
  computations: dict[str, dict[str, Instruction]] = {}
  current: dict[str, Instruction] = {}
  entry, header = None, ""
  for line in _BROKEN.sub(lambda found: found[0].replace("\n", ""), text).splitlines():
    if line.startswith("HloModule"):
      header = line
    elif line.endswith("{") and (found := _COMPUTATION.match(line)):
      current = computations[found.group(2)] = {}
      entry = current if found.group(1) else entry
    elif found := _INSTRUCTION.match(line):
      instruction = _instruction(bool(found.group(1)), found.group(2), found.group(3))
      current[instruction.name] = instruction
  if entry is None:
    raise ValueError("the HLO text has no ENTRY computation; pass compiled.as_text()")
  sizes = [int(n) for n in re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", header)]
  devices = functools.reduce(lambda a, b: a * b, sizes, 1)
  return Module({name: Computation(c) for name, c in computations.items()}, Computation(entry), devices)


def _instruction(is_root: bool, name: str, rest: str) -> Instruction:
  start = _closing(rest, 0) if rest.startswith("(") else 0  # a tuple type has parentheses and spaces of its own
  found = _OPCODE.search(rest, start)
  if found is None:
    raise ValueError(f"the HLO instruction {name} has no opcode: {rest[:120]}")
  end = _closing(rest, found.end() - 1)
  inside = rest[found.end() : end]
  return Instruction(
    name, found.group(1), rest[: found.start()], tuple(_OPERAND.findall(inside)), inside, rest[end + 1 :], is_root
  )


def _closing(text: str, opening: int) -> int:
  """Where the parenthesis that opens at `opening` closes."""
  depth = 0
  for position in range(opening, len(text)):
    depth += {"(": 1, ")": -1}.get(text[position], 0)
    if depth == 0:
      return position
  return len(text)
