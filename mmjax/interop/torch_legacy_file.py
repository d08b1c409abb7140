"""Reader of files that PyTorch wrote before version 1.6, without running the pickles in them.

The file is five pickles (magic number, protocol, system, tensors, keys of the storages), then each storage: the number
of its elements (int64) and their bytes. The pickles are read with `pickletools`, which lists their instructions. Of
these, only those that make numbers, texts, tuples, lists and mappings are followed. Everything else is refused, and
nothing is imported or called.
"""

import collections
import io
import math
import pickletools
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmjax.interop.errors import InteropError
from mmjax.interop.tensors import Entry

_STORAGES: dict[str, np.dtype] = {
  "torch FloatStorage": np.dtype("<f4"),
  "torch HalfStorage": np.dtype("<f2"),
  "torch DoubleStorage": np.dtype("<f8"),
  "torch LongStorage": np.dtype("<i8"),
  "torch IntStorage": np.dtype("<i4"),
}
_MAGIC = 0x1950A86A20F9469CFC6C
_REBUILD = ("torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter")
_MOST_INSTRUCTIONS = 1_000_000  # a network of ten thousand tensors has a third of this
_VALUES = {
  *("BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING", "BINSTRING"),
  *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Name(NamedTuple):
  """Name of something that the pickle would import."""

  text: str


class _Call(NamedTuple):
  """Call that the pickle would make."""

  function: _Name
  arguments: tuple[Any, ...]


class _Stored(NamedTuple):
  """Description of a storage."""

  description: tuple[Any, ...]


class TorchLegacyFile:
  """Tensors of a state dict, by name, as a `TensorFile`. Tensors that are views of a storage are read by their strides.

  Args:
    path: the file.
  Raises: InteropError: the file is not in this format, or it is damaged.
  """

  def __init__(self, path: Path):
    self.path = path
    data = path.read_bytes()
    try:
      (magic, _, _, tensors, keys), start = _pickles(data, 5)
      if magic != _MAGIC or not isinstance(tensors, dict) or not isinstance(keys, list):
        raise ValueError("it does not begin as PyTorch's files do")
      self._views = {name: _view(call) for name, call in tensors.items()}
      self._storages = _storages(data, start, keys, {view.key: view.dtype for view in self._views.values()})
      for name, view in self._views.items():
        view.check(name, self._storages)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error, OverflowError) as error:
      raise InteropError(
        f"{path} is not a file of tensors that PyTorch wrote before 1.6, or damaged: {error}"
      ) from error
    self.entries = {name: Entry(view.shape, view.dtype) for name, view in self._views.items()}

  def read(self, name: str) -> np.ndarray:
    """Tensor `name`, in the order of its indices."""
    view = self._views[name]
    strides = [step * view.dtype.itemsize for step in view.strides]
    return np.lib.stride_tricks.as_strided(
      self._storages[view.key][view.offset :], view.shape, strides, writeable=False
    )


class _View(NamedTuple):
  """Place of a tensor in a storage: elements are `strides` apart, from `offset` on."""

  key: str
  dtype: np.dtype
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def check(self, name: str, storages: dict[str, np.ndarray]) -> None:
    """Raise ValueError if elements are outside of the storage."""
    numbers = (self.offset, *self.shape, *self.strides)
    if len(self.shape) != len(self.strides) or min(numbers) < 0:
      raise ValueError(f"the tensor {name!r} has the shape {self.shape} and the strides {self.strides}")
    last = self.offset + sum((side - 1) * step for side, step in zip(self.shape, self.strides))
    size = storages[self.key].size
    if math.prod(self.shape) > size or last >= size:
      raise ValueError(f"the tensor {name!r} reads beyond its {size} numbers")


def _view(call: Any) -> _View:
  if call.function.text == _REBUILD[1]:
    call = call.arguments[0]
  if call.function.text != _REBUILD[0]:
    raise ValueError(f"it calls {call.function.text}")
  stored, offset, shape, strides = call.arguments[:4]
  kind, key = stored.description[1:3]
  if kind.text not in _STORAGES:
    raise ValueError(f"it has numbers of the type {kind.text}")
  return _View(key, _STORAGES[kind.text], offset, shape, strides)


def _storages(data: bytes, start: int, keys: list[str], dtypes: dict[str, np.dtype]) -> dict[str, np.ndarray]:
  found = {}
  for key in keys:
    (count,) = struct.unpack_from("<q", data, start)
    found[key] = np.frombuffer(data, dtypes[key], count, start + 8)
    start += 8 + found[key].nbytes
  if start != len(data):
    raise ValueError(f"{len(data) - start} bytes are left at its end")
  return found


def _pickles(data: bytes, count: int) -> tuple[list[Any], int]:
  """The values of the first pickles of a file, and where the next byte is."""
  file = io.BytesIO(data)
  return [_value(file) for _ in range(count)], file.tell()


def _value(file: io.BytesIO) -> Any:
  """Follow the instructions of one pickle. Raises ValueError at one that would do more than make plain values."""
  stack: list[Any] = []
  marks: list[int] = []
  memo: dict[int, Any] = {}
  for number, (code, argument, _) in enumerate(pickletools.genops(file)):
    if number == _MOST_INSTRUCTIONS:
      raise ValueError(f"a pickle has more than {_MOST_INSTRUCTIONS:,} instructions")
    _step(code.name, argument, stack, marks, memo)
  return stack.pop()


def _step(name: str, argument: Any, stack: list[Any], marks: list[int], memo: dict[int, Any]) -> None:
  if name in _VALUES:
    stack.append(argument)
  elif name in _CONSTANTS:
    stack.append(_CONSTANTS[name])
  elif name in ("EMPTY_DICT", "EMPTY_LIST"):
    stack.append({} if name == "EMPTY_DICT" else [])
  elif name == "MARK":
    marks.append(len(stack))
  elif name in ("BINPUT", "LONG_BINPUT"):
    memo[argument] = stack[-1]
  elif name in ("BINGET", "LONG_BINGET"):
    stack.append(memo[argument])
  elif name == "GLOBAL":
    stack.append(_Name(argument))
  elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
    stack.append(tuple(_popped(stack, marks.pop() if name == "TUPLE" else len(stack) - int(name[-1]))))
  elif name == "BINPERSID":
    stack.append(_Stored(stack.pop()))
  elif name == "REDUCE":
    arguments, function = stack.pop(), stack.pop()
    stack.append(_reduced(function, arguments))
  elif name in ("SETITEM", "SETITEMS"):
    items = _popped(stack, marks.pop() if name == "SETITEMS" else len(stack) - 2)
    stack[-1].update(zip(items[::2], items[1::2], strict=True))
  elif name in ("APPEND", "APPENDS"):
    items = _popped(stack, marks.pop() if name == "APPENDS" else len(stack) - 1)
    stack[-1].extend(items)
  elif name == "BUILD":
    stack.pop()  # attributes of the mapping, such as versions of the layers
  elif name not in ("PROTO", "FRAME", "STOP"):
    raise ValueError(f"a pickle has the instruction {name}")


def _popped(stack: list[Any], start: int) -> list[Any]:
  """Take what is on the stack from `start` on."""
  if not 0 <= start <= len(stack):
    raise ValueError("a pickle takes more values than there are")
  taken = stack[start:]
  del stack[start:]
  return taken


def _reduced(function: Any, arguments: Any) -> Any:
  if function == _Name("collections OrderedDict") and arguments == ():
    return collections.OrderedDict()
  if not isinstance(function, _Name) or function.text not in _REBUILD:
    raise ValueError(f"a pickle calls {function}")
  return _Call(function, arguments)
