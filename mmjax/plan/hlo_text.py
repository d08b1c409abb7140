"""Parser of the text of a compiled XLA program (HLO)."""

import dataclasses
import functools
import re

# Bits per element, by XLA's PrimitiveType. Other types (token, opaque) have no size.
_BITS = {
  **{"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128},
  **{f"{sign}{bits}": bits for sign in "su" for bits in (1, 2, 4, 8, 16, 32, 64)},
}
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,<=]*)\]")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")
_OPCODE = re.compile(r" ([a-z][a-z\d\-]*)\(")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) (\(.*\) -> .*)?\{$")
_BROKEN = re.compile(r"kernel_metadata=\{[^}]*\}")  # the only attribute that spans several lines
_OPERAND = re.compile(r"%([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Array:
  """Element type and dimensions of an array."""

  dtype: str
  shape: tuple[int, ...]

  @property
  def bytes(self) -> int:
    """Size in bytes."""
    count = 1
    for size in self.shape:
      count *= size
    bits = 8 if self.dtype.startswith("f8") else _BITS.get(self.dtype, 0)
    return -(-count * bits // 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line of a computation.

  Attributes:
    name: name of the instruction, unique in its computation.
    opcode: operation, such as "dot" or "fusion".
    type_text: type of the result, as written.
    operands: names of instructions in the same computation.
    literal: text between the parentheses, such as the value of a constant or the number of a parameter.
    attributes: text after the parentheses.
    is_root: True if it is marked as the result of the computation.
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
    """Arrays of the result. A tuple has several, in order."""
    return tuple(
      Array(dtype, tuple(int(n.lstrip("<=")) for n in dims.split(",") if n))
      for dtype, dims in _ARRAY.findall(self.type_text)
    )

  def attribute(self, pattern: str) -> str | None:
    """First group of the regular expression `pattern` in the attributes, or None."""
    found = re.search(pattern, self.attributes)
    return found.group(1) if found else None

  def called(self, *keys: str) -> tuple[str, ...]:
    """Names of the computations in the attributes `keys`, such as `calls`, `body` and `condition`."""
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
    """Instruction that gives the result."""
    last = next(reversed(self.instructions.values()))
    return next((i for i in self.instructions.values() if i.is_root), last)


@dataclasses.dataclass(frozen=True)
class Module:
  """A compiled program.

  Attributes:
    computations: computations by name.
    entry: computation that runs first.
    devices: number of devices, partitions x replicas.
  """

  computations: dict[str, Computation]
  entry: Computation
  devices: int


def parse(text: str) -> Module:
  """Parse the result of `compiled.as_text()`. Raises ValueError if it has no entry computation."""
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
  start = _closing(rest, 0) if rest.startswith("(") else 0  # a tuple type contains parentheses and spaces
  found = _OPCODE.search(rest, start)
  if found is None:
    raise ValueError(f"the HLO instruction {name} has no opcode: {rest[:120]}")
  end = _closing(rest, found.end() - 1)
  inside = rest[found.end() : end]
  return Instruction(
    name, found.group(1), rest[: found.start()], tuple(_OPERAND.findall(inside)), inside, rest[end + 1 :], is_root
  )


def _closing(text: str, opening: int) -> int:
  """Position of the parenthesis that closes the one at `opening`."""
  depth = 0
  for position in range(opening, len(text)):
    depth += {"(": 1, ")": -1}.get(text[position], 0)
    if depth == 0:
      return position
  return len(text)
