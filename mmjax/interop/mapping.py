"""Mapping between mmjax parameters and external tensors: names and layouts.

The same table serves reading and writing.
"""

import copy
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from einops import EinopsError, rearrange

from mmjax.errors import ConfigError
from mmjax.interop.errors import InteropError
from mmjax.interop.tensors import TensorFile
from mmjax.parallel.rules import match_rules

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Rule:
  """Correspondence between mmjax parameters and external tensors.

  Attributes:
    ours: regular expression that is searched in the path of the mmjax parameter.
    theirs: name of the external tensor. It may contain groups of `ours` as \\1, \\2.
    layout: axes of the external tensor, `->`, axes of the mmjax parameter, in einops notation. Empty if they are equal.
    sizes: (name, size) of axes that `layout` puts in parentheses.
    part: index of this parameter in the external tensor, if that tensor concatenates several parameters.
    axis: axis of the external tensor along which its parameters are concatenated.
  """

  ours: str
  theirs: str
  layout: str = ""
  sizes: tuple[tuple[str, int], ...] = ()
  part: int = 0
  axis: int = 0

  def to_ours(self, tensor: np.ndarray) -> np.ndarray:
    """Convert a tensor from the external layout to mmjax's layout."""
    return rearrange(tensor, self.layout, **dict(self.sizes)) if self.layout else tensor

  def to_theirs(self, tensor: np.ndarray) -> np.ndarray:
    """Convert a tensor from mmjax's layout to the external layout."""
    if not self.layout:
      return tensor
    theirs, ours = self.layout.split("->")
    return rearrange(tensor, f"{ours} -> {theirs}", **dict(self.sizes))

  def their_shape(self, shape: Shape) -> Shape:
    """Shape of the external tensor for an mmjax parameter of shape `shape`."""
    # A broadcast view of a single zero takes no memory.
    return self.to_theirs(np.broadcast_to(np.int8(0), shape)).shape


def linear(ours: str, theirs: str, part: int = 0) -> tuple[Rule, Rule]:
  """Rules of a linear layer in PyTorch's layout: weight [out, in] and bias."""
  return (
    Rule(f"{ours}/kernel$", f"{theirs}.weight", "o i -> i o", part=part),
    Rule(f"{ours}/bias$", f"{theirs}.bias", part=part),
  )


def norm(ours: str, theirs: str) -> tuple[Rule, Rule]:
  """Rules of a layer norm in PyTorch's layout: weight and bias."""
  return Rule(f"{ours}/scale$", f"{theirs}.weight"), Rule(f"{ours}/bias$", f"{theirs}.bias")


def batch_norm(ours: str, theirs: str) -> tuple[Rule, ...]:
  """Rules of a frozen batch norm in PyTorch's layout: weight, bias and running statistics."""
  names = (("scale", "weight"), ("bias", "bias"), ("mean", "running_mean"), ("var", "running_var"))
  return tuple(Rule(f"{ours}/{mine}$", f"{theirs}.{yours}") for mine, yours in names)


def convolution(ours: str, theirs: str) -> tuple[Rule, Rule]:
  """Rules of a convolution in PyTorch's layout, also of a depthwise one: weight [out, in, height, width] and bias."""
  return Rule(f"{ours}/kernel$", f"{theirs}.weight", "o i y x -> y x i o"), Rule(f"{ours}/bias$", f"{theirs}.bias")


def patches(ours: str, theirs: str, patch_size: int, layout: str = "o c p q -> (p q c) o") -> tuple[Rule, Rule]:
  """Rules of a patch embedding: a strided convolution in the external format, a matrix in mmjax.

  Args:
    ours: path of the patch embedding in mmjax.
    theirs: prefix of its external tensors.
    patch_size: side of a patch in pixels.
    layout: layout of the kernel, as in `Rule`.
  Returns: the rules of the kernel and of the bias.
  """
  sizes = (("p", patch_size), ("q", patch_size)) if "(" in layout else ()
  return Rule(f"{ours}/kernel$", f"{theirs}.weight", layout, sizes), Rule(f"{ours}/bias$", f"{theirs}.bias")


def joined(*groups: Iterable[Rule]) -> tuple[Rule, ...]:
  """Concatenate groups of rules."""
  return tuple(rule for group in groups for rule in group)


def under(ours: str, theirs: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
  """Add the prefixes of a tower to its rules: `ours` to the parameters' paths, `theirs` to the tensors' names."""
  begin = f"^{re.escape(ours)}"
  return tuple(dataclasses.replace(r, ours=begin + r.ours.removeprefix("^"), theirs=theirs + r.theirs) for r in rules)


@dataclasses.dataclass(frozen=True)
class Place:
  """Location of one mmjax parameter in an external file.

  Attributes:
    theirs: name of the external tensor.
    rule: rule that converts the layout.
    shape: shape of the mmjax parameter.
    start, stop: range of the parameter along `rule.axis` of the tensor. None: the parameter is the whole tensor.
  """

  theirs: str
  rule: Rule
  shape: Shape
  start: int | None = None
  stop: int | None = None

  def read(self, file: TensorFile) -> np.ndarray:
    """Read the parameter, as a view of the file if the layout allows it."""
    tensor = file.read(self.theirs)
    rows = (slice(None),) * self.rule.axis + (slice(self.start, self.stop),)
    return self.rule.to_ours(tensor if self.start is None else tensor[rows])


class Table:
  """Mapping of one model.

  Args:
    rules: rules of the architecture. The first that matches a parameter is used.
    shapes: shapes of the mmjax parameters, by path.
    partial: skip parameters that no rule matches, and parameters whose shape does not fit their rule. If False, they
      raise ConfigError.

  Attributes:
    places: location of every parameter, by path.
    their_shapes: shape of every external tensor, by name.
  """

  def __init__(self, rules: Sequence[Rule], shapes: Mapping[str, Shape], *, partial: bool = False):
    table: list[tuple[str, Rule | None]] = [(rule.ours, rule) for rule in rules]
    found = match_rules(table + [(".*", None)] * partial, dict.fromkeys(shapes, 0), purpose="weight mapping")
    matched = {path: rule for path, rule in found.items() if rule is not None}
    parts: dict[str, list[tuple[int, str, Rule, Shape]]] = {}
    for path, rule in matched.items():
      match = re.search(rule.ours, path)
      assert match is not None
      try:
        their_shape = rule.their_shape(shapes[path])
      except EinopsError as error:
        if partial:
          continue
        raise ConfigError(
          f"the parameter {path!r} has shape {shapes[path]}, which does not fit {rule.theirs!r}"
        ) from error
      except ValueError as error:  # NumPy refuses arrays of 2**63 bytes or more
        raise ConfigError(f"the parameter {path!r} has shape {shapes[path]}, too large for any file") from error
      parts.setdefault(match.expand(rule.theirs), []).append((rule.part, path, rule, their_shape))
    self.places: dict[str, Place] = {}
    self.their_shapes: dict[str, Shape] = {}
    for name, group in parts.items():
      self._place(name, sorted(group, key=lambda part: part[0]), shapes)

  def _place(self, name: str, group: list[tuple[int, str, Rule, Shape]], shapes: Mapping[str, Shape]) -> None:
    if len(group) == 1:
      (_, path, rule, shape) = group[0]
      self.places[path], self.their_shapes[name] = Place(name, rule, shapes[path]), shape
      return
    start, axis = 0, group[0][2].axis
    for _, path, rule, shape in group:
      self.places[path] = Place(name, rule, shapes[path], start, start + shape[axis])
      start += shape[axis]
    self.their_shapes[name] = (*group[0][3][:axis], start, *group[0][3][axis + 1 :])

  def under(self, prefix: str) -> "Table":
    """The part of this mapping for the parameters whose path begins with `prefix`, which is removed from the paths."""
    part = copy.copy(self)
    part.places = {p.removeprefix(prefix): place for p, place in self.places.items() if p.startswith(prefix)}
    names = {place.theirs for place in part.places.values()}
    part.their_shapes = {name: shape for name, shape in self.their_shapes.items() if name in names}
    return part

  def to_theirs(self, params: Mapping[str, Any], convert: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    """Make all external tensors.

    Args:
      params: all mmjax parameters, by path.
      convert: makes a NumPy array from a parameter.
    Returns: the tensors by name.
    """
    parts: dict[str, list[tuple[int, int, np.ndarray]]] = {}
    for path, place in self.places.items():
      tensor = place.rule.to_theirs(convert(params[path]))
      parts.setdefault(place.theirs, []).append((place.rule.part, place.rule.axis, tensor))
    return {name: _concatenated(group) for name, group in parts.items()}


def _concatenated(parts: list[tuple[int, int, np.ndarray]]) -> np.ndarray:
  ordered = [tensor for _, _, tensor in sorted(parts, key=lambda part: part[0])]
  return ordered[0] if len(ordered) == 1 else np.concatenate(ordered, axis=parts[0][1])


def check(file: TensorFile, table: Table, ignored: Sequence[str]) -> None:
  """Check the tensors of a file against the table of its architecture.

  Args:
    file: the checkpoint's tensors.
    table: the mapping.
    ignored: regular expressions of tensors that are not read.
  Raises: InteropError: a tensor is missing, has another shape, is not floating-point, or is not in the table.
  """
  missing = [name for name in table.their_shapes if name not in file.entries]
  if missing:
    raise InteropError(
      f"{file.path} has no tensor {_some(missing)}, which its configuration asks for{_with_prefix(file, missing[0])}"
    )
  for name, shape in table.their_shapes.items():
    found = file.entries[name]
    if found.shape != shape:
      raise InteropError(
        f"{file.path}: the tensor {name!r} has shape {list(found.shape)}, but its configuration asks for {list(shape)}"
      )
    if found.dtype.kind not in "fV":
      raise InteropError(f"{file.path}: the tensor {name!r} holds {found.dtype}, not floating-point numbers")
  surplus = surplus_names(file, table, ignored)
  if surplus:
    raise InteropError(
      f"{file.path} has the tensor {_some(surplus)}, which this architecture does not have. To load only the tensors "
      "that fit, use mmjax.interop.restore(path, params)"
    )


def surplus_names(file: TensorFile, table: Table, ignored: Sequence[str]) -> list[str]:
  """Names of external tensors that are neither in the table nor ignored."""
  known = set(table.their_shapes)
  return [n for n in file.entries if n not in known and not any(re.search(pattern, n) for pattern in ignored)]


def _with_prefix(file: TensorFile, name: str) -> str:
  """Hint for a tensor that the file has with a prefix."""
  for found in file.entries:
    if found.endswith(f".{name}"):
      return f". It has {found!r}: remove the prefix {found.removesuffix(name)!r} from the names of its tensors"
  return ""


def _some(names: list[str]) -> str:
  rest = len(names) - 3
  return ", ".join(repr(name) for name in names[:3]) + (f" (and {rest} more)" if rest > 0 else "")
