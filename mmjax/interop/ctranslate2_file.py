"""Reader of model.bin, the format of CTranslate2: a version, and tensors with a header each. No pickle is in it."""

import math
import mmap
import struct
from pathlib import Path

import numpy as np

from mmjax.interop.errors import InteropError
from mmjax.interop.tensors import Entry

_DTYPES = {number: np.dtype(name) for number, name in enumerate(("<f4", "i1", "<i2", "<i4", "<f2"))}
_MAX_TENSORS, _MAX_RANK = 20_000, 8
_REMEDY = "install the package again"


class CTranslate2File:
  """Tensors of a model.bin by name, as a `TensorFile`. The file is mapped into memory, and a tensor is a view of it.

  Args:
    path: the file.
  Raises: InteropError: the file is not in the format, is damaged, or does not end where its tensors do.

  Attributes:
    kind: name of the model's class in CTranslate2, such as "WhisperSpec".
    same: names of tensors that are another one: that one by name.
  """

  def __init__(self, path: Path):
    self.path = path
    self.entries: dict[str, Entry] = {}
    self.same: dict[str, str] = {}
    self._starts: dict[str, int] = {}
    self._place = 0
    try:
      with path.open("rb") as file:
        self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
      self._parse()
    except (OSError, ValueError, struct.error) as error:
      raise InteropError(
        f"{path} is not CTranslate2's model.bin of version 6, or it is damaged ({error}); {_REMEDY}"
      ) from error

  def read(self, name: str) -> np.ndarray:
    """Numbers of one tensor."""
    shape, dtype = self.entries[name]
    return np.frombuffer(self._bytes, dtype, math.prod(shape), self._starts[name]).reshape(shape)

  def _parse(self) -> None:
    """Read all headers. Nothing is allocated for what they claim."""
    version = self._number("I")
    if version != 6:
      raise ValueError(f"its version is {version}")
    self.kind, _ = self._text(), self._number("I")
    for _ in range(self._count()):
      name, rank = self._text(), self._number("B")
      if rank > _MAX_RANK or name in self.entries:
        raise ValueError(f"the tensor {name!r} has {rank} axes, or is there twice")
      shape = tuple(self._number("I") for _ in range(rank))
      dtype, size = _DTYPES.get(self._number("B")), self._number("I")
      if dtype is None or math.prod(shape) * dtype.itemsize != size or size > len(self._bytes) - self._place:
        raise ValueError(
          f"the tensor {name!r} of shape {list(shape)} has an unknown dtype or does not fit {size} bytes"
        )
      self.entries[name], self._starts[name] = Entry(shape, dtype), self._place
      self._place += size
    self.same = {self._text(): self._text() for _ in range(self._count())}
    if self._place != len(self._bytes):
      raise ValueError(f"{len(self._bytes) - self._place} bytes follow its last tensor")

  def _number(self, form: str) -> int:
    (value,) = struct.unpack_from(f"<{form}", self._bytes, self._place)
    self._place += struct.calcsize(f"<{form}")
    return value

  def _count(self) -> int:
    count = self._number("I")
    if count > _MAX_TENSORS:
      raise ValueError(f"it claims {count} tensors, and more than {_MAX_TENSORS} are refused")
    return count

  def _text(self) -> str:
    """Name with its length before it and a zero byte at its end."""
    length = self._number("H")
    raw = self._bytes[self._place : self._place + length]
    self._place += length
    if len(raw) < length or not raw.endswith(b"\0"):
      raise ValueError("a name has no end")
    return raw[:-1].decode("utf-8")
