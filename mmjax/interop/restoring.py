"""From a checkpoint's tensors into parameters: whole, in part, resampled, straight into their shards."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax.encoders import TextConfig
from mmjax.interop.errors import InteropError
from mmjax.interop.mapping import Place, check, surplus_names
from mmjax.interop.resample import resample_positions
from mmjax.interop.shapes import flatten, stacked_paths, unflatten
from mmjax.interop.source import Source, open_source

Shape = tuple[int, ...]
Read = Callable[[Any], np.ndarray]
"""From an index (a tuple of slices) to that piece of a parameter."""


@dataclasses.dataclass(frozen=True)
class Report:
  """What became of a partial load, parameter by parameter.

  Attributes:
    taken: our parameters that came from the file.
    resampled: those of them whose positions were resampled.
    reinitialised: our parameters that kept what they had.
    left: their tensors that nothing took.
  """

  taken: tuple[str, ...]
  resampled: tuple[str, ...]
  reinitialised: tuple[str, ...]
  left: tuple[str, ...]

  def __str__(self) -> str:
    lines = [f"{len(self.taken)} parameters taken, {len(self.resampled)} of them resampled"]
    for title, names in (("re-initialised", self.reinitialised), ("left in the file", self.left)):
      lines.append(f"{len(names)} {title}" + (": " + ", ".join(names) if names else ""))
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Plan:
  """Which of our parameters come from a checkpoint, and how to read any piece of one."""

  readers: Mapping[str, Read]
  report: Report


def plan_restore(source: Source, shapes: Mapping[str, Shape], *, take: Sequence[str] = (".*",), into: str = "") -> Plan:
  """Matches a checkpoint with parameters of ours, by path.

  Args:
    source: the checkpoint.
    shapes: of our parameters, by path; stacked over layers where the model is scanned.
    take: expressions of our paths; what none matches keeps what it has.
    into: the tower the checkpoint is for ("text"), where it is only one of the model's.
  Raises:
    InteropError: nothing at all fits, or a parameter that is taken has another shape (positions are resampled).
  """
  prefix = f"{into}/" if into else ""
  readers: dict[str, Read] = {}
  resampled, used = [], set[str]()
  for path, shape in shapes.items():
    if not path.startswith(prefix) or not any(re.search(expression, path) for expression in take):
      continue
    places = _places(source, path.removeprefix(prefix), shape)
    if places is None:
      continue
    readers[path], again = _reader(source, path, places, shape)
    used |= {place.theirs for place in places}
    resampled += [path] * again
  if not readers:
    raise InteropError(
      f"{source.path}: none of its parameters is one of the model's that {list(take)} match under {into!r}"
    )
  left = [name for name in source.file.entries if name not in used]
  kept = [path for path in shapes if path not in readers]
  return Plan(readers, Report(tuple(readers), tuple(resampled), tuple(kept), tuple(left)))


def restore(
  path: str | Path, params: Any, *, shardings: Any = None, take: Sequence[str] = (".*",), into: str = ""
) -> tuple[Any, Report]:
  """Parameters with those of a checkpoint in them, each read straight into its shards.

  A device's piece is cut from the file (which is mapped into memory, not read) and nothing is held twice.

  Args:
    path: anything that `load` reads.
    params: our parameters: arrays, or their shapes (jax.ShapeDtypeStruct).
    shardings: a tree of shardings like `params`; where it is None, those of the arrays, or the default device.
    take: expressions of our parameters' paths; what none matches stays.
    into: the tower that the checkpoint is for ("image", "text"), where it is only that.
  Returns: the parameters, and the report of what was taken, left, and stayed as it was.
  Raises: InteropError, as for `load`; and where nothing fits.
  """
  source = open_source(path)
  flat = flatten(params)
  plan = plan_restore(source, {name: leaf.shape for name, leaf in flat.items()}, take=take, into=into)
  places = None if shardings is None else flatten(shardings)
  result = {}
  for name, leaf in flat.items():
    if name not in plan.readers:
      result[name] = leaf
      continue
    where = getattr(leaf, "sharding", None) if places is None else places[name]
    result[name] = make_array(plan.readers[name], leaf.shape, where)
  return unflatten(result), plan.report


def make_array(read: Read, shape: Shape, sharding: Any = None) -> jax.Array:
  """A float32 array of which every device reads its own piece."""
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.make_array_from_callback(shape, sharding, read)


def read_all(source: Source) -> dict[str, jax.Array]:
  """All parameters by path; tensors that are missing, misshapen or surplus are errors."""
  check(source.file, source.table, source.architecture.ignored)
  return {
    path: make_array(_reader(source, path, [place], place.shape)[0], place.shape)
    for path, place in source.table.places.items()
  }


def unused(source: Source) -> list[str]:
  """Their tensors that have no place in the architecture."""
  return surplus_names(source.file, source.table, source.architecture.ignored)


def _places(source: Source, path: str, shape: Shape) -> list[Place] | None:
  """Where a parameter of ours comes from: one tensor, or one per layer of a scanned tower; None where there is none."""
  layers = [path]
  stack = re.search(r"(^|/)blocks/", path)
  if stack:
    layers = [f"{path[: stack.start()]}{stack[1]}block_{layer}/{path[stack.end() :]}" for layer in range(shape[0])]
  if layers[0] not in source.table.places:
    return None
  missing = [name for name in layers if name not in source.table.places]
  if missing:
    raise InteropError(f"{source.path} has no parameter {missing[0]!r}: its tower is less deep than the model's")
  for name in layers:
    if source.table.places[name].theirs not in source.file.entries:
      raise InteropError(f"{source.path} has no tensor {source.table.places[name].theirs!r}")
  return [source.table.places[name] for name in layers]


def _reader(source: Source, path: str, places: list[Place], shape: Shape) -> tuple[Read, bool]:
  """How to read any piece of a parameter, and whether its positions are resampled."""
  stacked = stacked_paths(path)[1] is None and "blocks/" in path
  wanted = shape[1:] if stacked else shape
  for place in places:
    _check_shape(source, place)
  if all(place.shape == wanted for place in places):
    if not stacked:
      return lambda index: _float32(places[0].read(source.file)[index]), False
    return lambda index: np.stack([_float32(p.read(source.file)[index[1:]]) for p in places[index[0]]]), False
  if not path.endswith("position_embedding") or places[0].shape[1:] != wanted[1:]:
    raise InteropError(
      f"{source.path}: {places[0].theirs!r} is {list(places[0].shape)} as our {path!r}, the model has {list(wanted)}"
    )
  text = isinstance(source.config, TextConfig) or path.startswith(("text/", "words/"))
  positions = resample_positions(_float32(places[0].read(source.file)), wanted[0], text=text, name=path)
  return lambda index: positions[index], True


def _check_shape(source: Source, place: Place) -> None:
  wanted, found = source.table.their_shapes[place.theirs], source.file.entries[place.theirs].shape
  if wanted != found:
    raise InteropError(
      f"{source.path}: the tensor {place.theirs!r} has shape {list(found)}; its configuration asks for {list(wanted)}"
    )


def _float32(tensor: np.ndarray) -> np.ndarray:
  """A copy (JAX may keep what it is given, and the file stays mapped), with half precision widened.

  bfloat16, which NumPy does not know, is called V2 in a .npz.
  """
  if tensor.dtype.kind == "V":
    import ml_dtypes

    tensor = tensor.view(ml_dtypes.bfloat16)
  return np.array(tensor, np.float32, order="C")
