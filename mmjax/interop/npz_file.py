"""Reader of NumPy's .npz files, the format of big_vision. Headers are checked before data. Nothing is unpickled."""

import lzma
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from mmjax.interop.errors import InteropError
from mmjax.interop.tensors import Entry

_MAX_MEMBERS = 10_000  # opening one array takes 0.1 ms
# Errors that a damaged archive causes. RuntimeError: the archive claims to be encrypted.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError, ValueError)


class NpzFile:
  """Arrays of a .npz file, by name.

  Args:
    path: the file.

  Raises:
    InteropError: the file is not a zip of .npy files; an array contains objects (pickle); a header claims more or fewer
      bytes than the archive holds; or an array expands too much (zip bomb).
  """

  def __init__(self, path: Path):
    self.path = path
    try:
      self._zip = zipfile.ZipFile(path)
      members = self._zip.infolist()
      if len(members) > _MAX_MEMBERS:
        raise InteropError(f"{path}: {len(members)} arrays; more than {_MAX_MEMBERS} are refused")
      self.entries = {m.filename.removesuffix(".npy"): self._entry(m) for m in members}
    except InteropError:
      raise
    except _DAMAGED as error:
      raise InteropError(f"{path} is not a complete .npz file ({error}); download or export it again") from error

  def read(self, name: str) -> np.ndarray:
    """Read one array into memory. Raises InteropError if its data are corrupt."""
    try:
      with self._zip.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)
    except _DAMAGED as error:
      raise InteropError(
        f"{self.path}: the array {name!r} is corrupt ({error}); download or export it again"
      ) from error

  def _entry(self, member: zipfile.ZipInfo) -> Entry:
    where = f"{self.path}: the array {member.filename.removesuffix('.npy')!r}"
    with self._zip.open(member) as file:
      try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
          version
        ]
        shape, _, dtype = read_header(file)
      except (ValueError, KeyError) as error:
        raise InteropError(f"{where} is not a .npy array ({error})") from error
      if dtype.hasobject or (dtype.kind == "V" and dtype.itemsize != 2):
        raise InteropError(f"{where} has the dtype {dtype}: only numbers are read, nothing is unpickled")
      claimed = math.prod(shape) * dtype.itemsize
      if claimed != member.file_size - file.tell():
        raise InteropError(
          f"{where} claims shape {shape} of {dtype}, {claimed} bytes, but the archive holds "
          f"{member.file_size - file.tell()}"
        )
      # A zip file of zeros may expand to 1,000 times its size. Real weights hardly compress.
      if member.file_size > 1_000 + 200 * member.compress_size:
        raise InteropError(
          f"{where} claims {member.file_size} bytes from {member.compress_size}: refused as a zip bomb"
        )
    return Entry(tuple(shape), dtype)
