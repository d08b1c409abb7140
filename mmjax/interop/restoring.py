"""Restoring of parameters from a checkpoint: all or some of them, resampled, directly into their shards."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.encoders import TextConfig
from mmjax.interop.errors import InteropError
from mmjax.interop.mapping import Place, check, surplus_names
from mmjax.interop.resample import resample_positions
from mmjax.interop.shapes import flatten, stacked_paths, unflatten
from mmjax.interop.source import Source, open_source

Shape = tuple[int, ...]
Read = Callable[[Any], np.ndarray]
"""Function that reads one piece of a parameter, given its index (a tuple of slices)."""


@dataclasses.dataclass(frozen=True)
class Report:
  """Outcome of a partial load.

  Attributes:
    taken: mmjax parameters that were read from the file.
    resampled: those of `taken` whose position embeddings were resampled.
    reinitialised: mmjax parameters that were not read and kept their value.
    left: external tensors that were not used.
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
  """Plan of a partial load.

  Attributes:
    readers: for each mmjax parameter to read, by path, a function that reads any piece of it.
    report: the outcome.
  """

  readers: Mapping[str, Read]
  report: Report


def plan_restore(source: Source, shapes: Mapping[str, Shape], *, take: Sequence[str] = (".*",), into: str = "") -> Plan:
  """Match the parameters of a model with those of a checkpoint, by path.

  Args:
    source: the checkpoint.
    shapes: shapes of the model's parameters, by path; stacked over layers if the model is scanned.
    take: regular expressions of parameter paths. Parameters that none of them matches are not read.
    into: name of the tower to restore ("image", "text") if the checkpoint is a single tower. Empty: the whole model.
  Returns: the plan.
  Raises:
    InteropError: no parameter is found in the checkpoint, a scanned tower is deeper than the checkpoint's, or a
      parameter has another shape than the checkpoint's (position embeddings are resampled instead).
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
      f"{source.path}: none of its parameters is a parameter of the model that {list(take)} match under {into!r}"
    )
  left = [name for name in source.file.entries if name not in used]
  kept = [path for path in shapes if path not in readers]
  return Plan(readers, Report(tuple(readers), tuple(resampled), tuple(kept), tuple(left)))


def restore(
  path: str | Path, params: Any, *, shardings: Any = None, take: Sequence[str] = (".*",), into: str = ""
) -> tuple[Any, Report]:
  """Replace parameters by those of a checkpoint, each read directly into its shards.

  Each device reads only its piece. A .safetensors file is mapped into memory, so the weights are not held there twice.

  Args:
    path: anything that `load` reads.
    params: parameters of the model: arrays, or their shapes (jax.ShapeDtypeStruct).
    shardings: a tree of shardings like `params`. None: the shardings of the arrays, or else the first device.
    take: regular expressions of parameter paths. Parameters that none of them matches are returned unchanged.
    into: name of the tower to restore ("image", "text"), from a single tower or from this tower of a whole model.
      Empty: the whole model.
  Returns: (params, report).
  Raises: InteropError: the checkpoint cannot be read (as for `load`), or does not fit (as for `plan_restore`).
  """
  source = open_source(path, tower=into)
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


def make_array(read: Read, shape: Shape, sharding: Any = None, dtype: str = "float32") -> jax.Array:
  """Make an array, of which each device reads only its piece.

  Args:
    read: reads a piece.
    shape: shape of the whole array.
    sharding: sharding of the array. None: the first device.
    dtype: dtype of matrices. Vectors and scalars (biases, gains, the logit scale) are always float32.
  """
  if sharding is None:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  wanted = np.dtype(jnp.dtype(dtype) if len(shape) > 1 else np.float32)
  return jax.make_array_from_callback(shape, sharding, lambda index: _cast(read(index), wanted))


def read_all(source: Source, dtype: str = "float32") -> dict[str, jax.Array]:
  """Read all parameters, by path, one after the other. `dtype` is that of `make_array`.

  Raises: InteropError: a tensor is missing, surplus, or of another shape or dtype.
  """
  check(source.file, source.table, source.architecture.ignored)
  return {
    path: make_array(_reader(source, path, [place], place.shape)[0], place.shape, dtype=dtype)
    for path, place in source.table.places.items()
  }


def unused(source: Source) -> list[str]:
  """Names of external tensors that the architecture does not have."""
  return surplus_names(source.file, source.table, source.architecture.ignored)


def _places(source: Source, path: str, shape: Shape) -> list[Place] | None:
  """Places of a parameter in the checkpoint: one, or one per layer of a scanned tower. None if it is not there."""
  layers = [path]
  stack = re.search(r"(^|/)blocks/", path)
  if stack:
    layers = [f"{path[: stack.start()]}{stack[1]}block_{layer}/{path[stack.end() :]}" for layer in range(shape[0])]
  if layers[0] not in source.table.places:
    return None
  missing = [name for name in layers if name not in source.table.places]
  if missing:
    raise InteropError(f"{source.path} has no parameter {missing[0]!r}: its tower has fewer layers than the model's")
  for name in layers:
    if source.table.places[name].theirs not in source.file.entries:
      raise InteropError(f"{source.path} has no tensor {source.table.places[name].theirs!r}")
  return [source.table.places[name] for name in layers]


def _reader(source: Source, path: str, places: list[Place], shape: Shape) -> tuple[Read, bool]:
  """Make the function that reads any piece of a parameter. The second result is True if positions are resampled."""
  stacked = stacked_paths(path)[1] is None and "blocks/" in path
  wanted = shape[1:] if stacked else shape
  for place in places:
    _check_shape(source, place)
  if all(place.shape == wanted for place in places):
    if not stacked:
      return lambda index: _numbers(places[0].read(source.file)[index]), False
    return lambda index: np.stack([_numbers(p.read(source.file)[index[1:]]) for p in places[index[0]]]), False
  if not path.endswith("position_embedding") or places[0].shape[1:] != wanted[1:]:
    raise InteropError(
      f"{source.path}: {places[0].theirs!r} gives {path!r} the shape {list(places[0].shape)}, but the model has "
      f"{list(wanted)}"
    )
  text = isinstance(source.config, TextConfig) or path.startswith(("text/", "words/"))
  found = _float32(places[0].read(source.file))
  positions = resample_positions(found, wanted[0], text=text, name=path, how=source.resampling)
  return lambda index: positions[index], True


def _check_shape(source: Source, place: Place) -> None:
  wanted, found = source.table.their_shapes[place.theirs], source.file.entries[place.theirs].shape
  if wanted != found:
    raise InteropError(
      f"{source.path}: the tensor {place.theirs!r} has shape {list(found)}; its configuration asks for {list(wanted)}"
    )


def _float32(tensor: np.ndarray) -> np.ndarray:
  """Copy a tensor to float32."""
  return _cast(_numbers(tensor), np.dtype(np.float32))


def _numbers(tensor: np.ndarray) -> np.ndarray:
  """View a tensor as numbers. NumPy does not know bfloat16: in a .npz file it has the dtype V2."""
  if tensor.dtype.kind == "V" and tensor.dtype.name != "bfloat16":
    import ml_dtypes

    return tensor.view(ml_dtypes.bfloat16)
  return tensor


def _cast(tensor: np.ndarray, dtype: np.dtype) -> np.ndarray:
  """Copy a tensor to a dtype. JAX may keep the array, so it must not be a view of the file, which stays mapped."""
  own = tensor.flags.owndata and tensor.flags.c_contiguous and tensor.dtype == dtype
  return tensor if own else np.array(tensor, dtype, order="C")
