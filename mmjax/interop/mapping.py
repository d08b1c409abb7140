"""One table, read in both directions: which of our parameters is which of their tensors, and in which layout."""

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
  """Which tensor of theirs a parameter of ours is.

  Attributes:
    ours: regular expression found in the path of our parameter; its groups may stand in `theirs` as \\1, \\2.
    theirs: the name of their tensor.
    layout: their axes, an arrow, our axes, in einops's notation; empty where both are the same.
    sizes: the axes that a parenthesis in `layout` takes apart, by name.
    part: their tensor may be several of ours, one after the other: which one this is.
    axis: of their tensor, along which they follow each other.
  """

  ours: str
  theirs: str
  layout: str = ""
  sizes: tuple[tuple[str, int], ...] = ()
  part: int = 0
  axis: int = 0

  def to_ours(self, tensor: np.ndarray) -> np.ndarray:
    return rearrange(tensor, self.layout, **dict(self.sizes)) if self.layout else tensor

  def to_theirs(self, tensor: np.ndarray) -> np.ndarray:
    if not self.layout:
      return tensor
    theirs, ours = self.layout.split("->")
    return rearrange(tensor, f"{ours} -> {theirs}", **dict(self.sizes))

  def their_shape(self, shape: Shape) -> Shape:
    # A view of one zero has every shape and takes no memory.
    return self.to_theirs(np.broadcast_to(np.int8(0), shape)).shape


def linear(ours: str, theirs: str, part: int = 0) -> tuple[Rule, Rule]:
  """A linear layer as PyTorch keeps it: weight [out, in] and bias."""
  return (
    Rule(f"{ours}/kernel$", f"{theirs}.weight", "o i -> i o", part=part),
    Rule(f"{ours}/bias$", f"{theirs}.bias", part=part),
  )


def norm(ours: str, theirs: str) -> tuple[Rule, Rule]:
  """A layer norm as PyTorch keeps it: weight and bias."""
  return Rule(f"{ours}/scale$", f"{theirs}.weight"), Rule(f"{ours}/bias$", f"{theirs}.bias")


def patches(ours: str, theirs: str, patch_size: int, layout: str = "o c p q -> (p q c) o") -> tuple[Rule, Rule]:
  """A patch embedding: their strided convolution is our matrix."""
  sizes = (("p", patch_size), ("q", patch_size), ("c", 3)) if "(" in layout else ()
  return Rule(f"{ours}/kernel$", f"{theirs}.weight", layout, sizes), Rule(f"{ours}/bias$", f"{theirs}.bias")


def joined(*groups: Iterable[Rule]) -> tuple[Rule, ...]:
  """One table from several."""
  return tuple(rule for group in groups for rule in group)


def under(ours: str, theirs: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
  """The rules of a tower, with its place in our tree and in their names in front."""
  return tuple(dataclasses.replace(r, ours=f"^{re.escape(ours)}{r.ours}", theirs=theirs + r.theirs) for r in rules)


@dataclasses.dataclass(frozen=True)
class Place:
  """Where one of our parameters stands in a file of theirs.

  Attributes:
    theirs: the tensor's name.
    rule: how to change its layout.
    shape: of our parameter.
    start, stop: its rows along the rule's axis of their tensor; the whole tensor where both are None.
  """

  theirs: str
  rule: Rule
  shape: Shape
  start: int | None = None
  stop: int | None = None

  def read(self, file: TensorFile) -> np.ndarray:
    """Our parameter, as a view of the file where its layout allows."""
    tensor = file.read(self.theirs)
    rows = (slice(None),) * self.rule.axis + (slice(self.start, self.stop),)
    return self.rule.to_ours(tensor if self.start is None else tensor[rows])


class Table:
  """The table for one model: places of all its parameters, and the shapes of all their tensors.

  Args:
    rules: the table.
    shapes: our parameters, by path.
    partial: leave out parameters that no rule covers or fits; otherwise they are an error (ConfigError).
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
        raise ConfigError(f"the parameter {path!r} has shape {shapes[path]}, not that of {rule.theirs!r}") from error
      except ValueError as error:  # NumPy counts no further than 2**63 bytes
        raise ConfigError(f"the parameter {path!r} would have shape {shapes[path]}, which no file holds") from error
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

  def to_theirs(self, params: Mapping[str, Any], convert: Callable[[Any], np.ndarray]) -> dict[str, np.ndarray]:
    """All their tensors from all our parameters."""
    parts: dict[str, list[tuple[int, int, np.ndarray]]] = {}
    for path, place in self.places.items():
      tensor = place.rule.to_theirs(convert(params[path]))
      parts.setdefault(place.theirs, []).append((place.rule.part, place.rule.axis, tensor))
    return {name: _concatenated(group) for name, group in parts.items()}


def _concatenated(parts: list[tuple[int, int, np.ndarray]]) -> np.ndarray:
  ordered = [tensor for _, _, tensor in sorted(parts, key=lambda part: part[0])]
  return ordered[0] if len(ordered) == 1 else np.concatenate(ordered, axis=parts[0][1])


def check(file: TensorFile, table: Table, ignored: Sequence[str]) -> None:
  """Raises InteropError for the first tensors that are missing, of another shape, or surplus."""
  missing = [name for name in table.their_shapes if name not in file.entries]
  if missing:
    raise InteropError(f"{file.path} has no tensor {_some(missing)}, which its configuration asks for")
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
      f"{file.path} has the tensor {_some(surplus)}, which has no place in this architecture; to take only what fits, "
      "use mmjax.interop.restore(path, params)"
    )


def surplus_names(file: TensorFile, table: Table, ignored: Sequence[str]) -> list[str]:
  """Their tensors that the table does not know and that are not known to be nothing but buffers."""
  known = set(table.their_shapes)
  return [n for n in file.entries if n not in known and not any(re.search(pattern, n) for pattern in ignored)]


def _some(names: list[str]) -> str:
  rest = len(names) - 3
  return ", ".join(repr(name) for name in names[:3]) + (f" (and {rest} more)" if rest > 0 else "")
