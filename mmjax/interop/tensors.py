"""Tensors in files, by name, read on demand."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from mmjax.interop.errors import InteropError

_MAX_LAYERS = 1_000


class Entry(NamedTuple):
  """Shape and dtype of one tensor, from a header that was checked against the file."""

  shape: tuple[int, ...]
  dtype: np.dtype


class TensorFile(Protocol):
  """Tensors of a checkpoint, by name. Headers are read at once, and data on demand (as views where possible)."""

  path: Path

  @property
  def entries(self) -> Mapping[str, Entry]:
    """Shapes and dtypes by name."""
    ...

  def read(self, name: str) -> np.ndarray:
    """Data of one tensor."""
    ...


class Shards:
  """Several files as one: transformers splits large models. Raises InteropError if two files hold the same tensor."""

  def __init__(self, path: Path, files: list[TensorFile]):
    self.path = path
    self._owner: dict[str, TensorFile] = {}
    self.entries: dict[str, Entry] = {}
    for file in files:
      for name, entry in file.entries.items():
        if name in self._owner:
          raise InteropError(f"{path}: {self._owner[name].path.name} and {file.path.name} both hold {name!r}")
        self._owner[name] = file
        self.entries[name] = entry

  def read(self, name: str) -> np.ndarray:
    """Data of one tensor."""
    return self._owner[name].read(name)


class Renamed:
  """A file with changed tensor names.

  Args:
    file: the file.
    pairs: (regular expression, replacement) pairs, applied one after the other. They remove prefixes and replace the
      names of older versions.
  Raises: InteropError: two tensors get the same name.
  """

  def __init__(self, file: TensorFile, pairs: Sequence[tuple[str, str]]):
    self.path = file.path
    self._file = file
    self._original: dict[str, str] = {}
    for name in file.entries:
      new = name
      for expression, replacement in pairs:
        new = re.sub(expression, replacement, new)
      if new in self._original:
        raise InteropError(f"{file.path}: {self._original[new]!r} and {name!r} are both {new!r}")
      self._original[new] = name
    self.entries = {new: file.entries[name] for new, name in self._original.items()}

  def read(self, name: str) -> np.ndarray:
    """Data of the tensor with the new name `name`."""
    return self._file.read(self._original[name])


class Part:
  """The tensors of a file whose names begin with a prefix, without it.

  Args:
    file: the file.
    prefix: regular expression of the prefix.
  """

  def __init__(self, file: TensorFile, prefix: str):
    self.path = file.path
    self._file = file
    self._original = {re.sub(prefix, "", name): name for name in file.entries if re.match(prefix, name)}
    self.entries = {new: file.entries[name] for new, name in self._original.items()}

  def read(self, name: str) -> np.ndarray:
    """Data of the tensor with the name `name` after the prefix."""
    return self._file.read(self._original[name])


class Unstacked:
  """A file whose tensors are stacked over layers, with one tensor per layer.

  For example, `encoderblock/x` [depth, ...] becomes `encoderblock_0/x` [...], `encoderblock_1/x` [...] and so on.

  Args:
    file: the file.
    stacked: part of a name that marks a stacked tensor, for example "encoderblock/".
    layer: its replacement, with {} for the layer's number, for example "encoderblock_{}/".
  Raises: InteropError: a tensor stacks more than 1,000 layers.
  """

  def __init__(self, file: TensorFile, stacked: str, layer: str):
    self.path = file.path
    self._file = file
    self._places: dict[str, tuple[str, int | None]] = {}
    self.entries: dict[str, Entry] = {}
    for name, entry in file.entries.items():
      if stacked in name and entry.shape and entry.shape[0] > _MAX_LAYERS:
        raise InteropError(f"{file.path}: {name!r} stacks {entry.shape[0]} layers; more than {_MAX_LAYERS} are refused")
      for place, new in _layers(name, entry, stacked, layer):
        self._places[new] = (name, place)
        self.entries[new] = entry if place is None else Entry(entry.shape[1:], entry.dtype)

  def read(self, name: str) -> np.ndarray:
    """Data of one tensor, of one layer if it was stacked."""
    original, place = self._places[name]
    tensor = self._file.read(original)
    return tensor if place is None else tensor[place]


def _layers(name: str, entry: Entry, stacked: str, layer: str) -> Iterator[tuple[int | None, str]]:
  if stacked not in name or not entry.shape:
    yield None, name
    return
  for place in range(entry.shape[0]):
    yield place, name.replace(stacked, layer.format(place))
