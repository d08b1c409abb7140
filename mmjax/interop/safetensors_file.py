"""Reader and writer of safetensors files. The whole header is checked before any data is read."""

import json
import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from mmjax.interop.errors import InteropError
from mmjax.interop.tensors import Entry

DTYPES: dict[str, np.dtype] = {
  "BOOL": np.dtype(np.bool_),
  "U8": np.dtype(np.uint8),
  "I8": np.dtype(np.int8),
  "U16": np.dtype(np.uint16),
  "I16": np.dtype(np.int16),
  "U32": np.dtype(np.uint32),
  "I32": np.dtype(np.int32),
  "U64": np.dtype(np.uint64),
  "I64": np.dtype(np.int64),
  "F16": np.dtype(np.float16),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "F32": np.dtype(np.float32),
  "F64": np.dtype(np.float64),
}
_MAX_HEADER, _MAX_TENSORS = 5_000_000, 20_000  # such a header is checked in 0.5 s
_REMEDY = "download or export the file again"


class SafetensorsFile:
  """Tensors of a .safetensors file, by name. The file is mapped into memory, and a tensor is a view of it.

  Only the tensor that was read last stays in memory.

  Args:
    path: the file.

  Raises:
    InteropError: the file is truncated, its header is not in the format, or a tensor's description is wrong (unknown
      dtype, shape that does not fit its bytes, bytes outside the file or shared with another tensor).
  """

  def __init__(self, path: Path):
    self.path = path
    size = path.stat().st_size
    with path.open("rb") as file:
      length = _header_length(path, file.read(8), size)
      header = _parse(path, file.read(length))
      self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    if len(header) > _MAX_TENSORS:
      raise InteropError(f"{path}: its header describes {len(header)} tensors; more than {_MAX_TENSORS} are refused")
    self._start = 8 + length
    self._last = ""
    self.metadata: Mapping[str, Any] = header.pop("__metadata__", None) or {}
    self._offsets: dict[str, int] = {}
    self.entries: dict[str, Entry] = {}
    spans = []
    for name, fields in header.items():
      entry, begin, end = _entry(f"{path}: the tensor {name!r}", fields, size - self._start)
      self.entries[name], self._offsets[name] = entry, begin
      spans.append((begin, end, name))
    _check_spans(path, sorted(spans), size - self._start)

  def read(self, name: str) -> np.ndarray:
    """Tensor `name`, as a view of the file."""
    entry = self.entries[name]
    count = math.prod(entry.shape)
    if name != self._last:
      self._release()
      self._last = name
    if count == 0:
      return np.zeros(entry.shape, entry.dtype)
    flat = np.frombuffer(self._bytes, entry.dtype, count, self._start + self._offsets[name])
    return flat.reshape(entry.shape)

  def _release(self) -> None:
    """Take the file out of memory. Views of it stay valid: they read the file again."""
    if isinstance(self._bytes, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
      self._bytes.madvise(mmap.MADV_DONTNEED)


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
  """Write tensors to a file: first to PATH.partial, which is then renamed."""
  from safetensors.numpy import save_file

  partial = path.with_name(path.name + ".partial")
  save_file({name: np.asarray(t, order="C") for name, t in tensors.items()}, partial, dict(metadata))
  partial.replace(path)


def _header_length(path: Path, first: bytes, size: int) -> int:
  if len(first) < 8:
    raise InteropError(f"{path} is truncated: {size} bytes, fewer than the 8 of the header's length; {_REMEDY}")
  length = int.from_bytes(first, "little")
  if length > size - 8:
    raise InteropError(
      f"{path} is truncated or no safetensors file: its header claims {length} bytes, but {size - 8} follow; {_REMEDY}"
    )
  if length > _MAX_HEADER:
    raise InteropError(f"{path}: its header claims {length} bytes; more than {_MAX_HEADER} are refused")
  return length


def _parse(path: Path, header: bytes) -> dict[str, Any]:
  try:
    parsed = json.loads(header, object_pairs_hook=_no_duplicates)
  except (ValueError, RecursionError) as error:
    raise InteropError(f"{path}: its header is not JSON ({error}); {_REMEDY}") from error
  if not isinstance(parsed, dict):
    raise InteropError(f"{path}: its header is not a JSON object; {_REMEDY}")
  return parsed


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found: dict[str, Any] = {}
  for name, value in pairs:
    if name in found:
      raise ValueError(f"{name!r} appears twice")
    found[name] = value
  return found


def _entry(where: str, fields: Any, available: int) -> tuple[Entry, int, int]:
  if not isinstance(fields, dict):
    raise InteropError(f"{where} is not described by an object with dtype, shape and data_offsets")
  dtype = DTYPES.get(fields["dtype"]) if isinstance(fields.get("dtype"), str) else None
  if dtype is None:
    raise InteropError(f"{where} has the dtype {fields.get('dtype')!r}; known are {', '.join(DTYPES)}")
  shape: Any = fields.get("shape")
  offsets: Any = fields.get("data_offsets")
  if not _naturals(shape):
    raise InteropError(f"{where} has the shape {shape!r}, which is not a list of non-negative integers")
  if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
    raise InteropError(f"{where} has data_offsets {offsets!r}, which are not [begin, end]")
  begin, end = offsets
  if end > available:
    raise InteropError(
      f"{where} claims the bytes {begin} to {end}, but the file has {available}: it is truncated; {_REMEDY}"
    )
  if math.prod(shape) * dtype.itemsize != end - begin:
    raise InteropError(
      f"{where} has shape {shape} of {fields['dtype']}, {math.prod(shape) * dtype.itemsize} bytes, but data_offsets "
      f"of {end - begin} bytes"
    )
  return Entry(tuple(shape), dtype), begin, end


def _naturals(value: Any) -> bool:
  return isinstance(value, list) and len(value) <= 32 and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _check_spans(path: Path, spans: list[tuple[int, int, str]], available: int) -> None:
  """Check that the tensors lie one after the other and fill the file, as the format requires."""
  end, last = 0, ""
  for begin, stop, name in spans:
    if begin < end:
      raise InteropError(f"{path}: the tensors {last!r} and {name!r} overlap; {_REMEDY}")
    if begin > end:
      raise InteropError(f"{path}: {begin - end} bytes before the tensor {name!r} belong to no tensor; {_REMEDY}")
    end, last = stop, name
  if end != available:
    raise InteropError(f"{path}: {available - end} bytes after the last tensor belong to no tensor; {_REMEDY}")
