"""Index of the records of a tar. It is made once from the headers, cached on disk, and read one row at a time.

An index file is one line of JSON (count and faults), followed by rows of 25 bytes. Memory does not grow with the number
of records.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from mmjax.data.errors import DataError
from mmjax.data.shards.media import MEDIA
from mmjax.data.shards.record import MAX_TEXT_BYTES
from mmjax.data.shards.tar_headers import ZEROS, BrokenTar, members
from mmjax.data.shards.tar_samples import ROW, Faults, Row, Samples

_VERSION = 3


class TarIndex:
  """Rows of an index file.

  Attributes:
    path: path of the index file.
    faults: faults of the shard.
  """

  def __init__(self, path: Path):
    self.path = path
    with path.open("rb") as file:
      line = file.readline(MAX_TEXT_BYTES)
      found = json.loads(line)
    self._start, self._count = len(line), int(found.pop("count"))
    if path.stat().st_size != self._start + self._count * ROW.size:
      raise ValueError("the size of the index is not what its header says")
    for name in ("refused", "passed", "bytes"):
      found[name] = Counter(found[name])
    self.faults = Faults(**found)

  def __len__(self) -> int:
    return self._count

  def row(self, position: int, read: Any) -> Row:
    """Read a row with the function `read(path, size, offset)`."""
    return Row(*ROW.unpack(read(self.path, ROW.size, self._start + position * ROW.size)))


def tar_index(path: Path, directory: Path, *, json_first: bool, max_bytes: int, media: str = "image") -> TarIndex:
  """Read the index of a tar from the cache, or make it.

  A cached index is used only if the tar has the same size and modification time.

  Args:
    path: the tar.
    directory: folder of the cache.
    json_first: read captions from .json if a record has both .json and .txt.
    max_bytes: largest size of a file. A record with a larger one is bad.
    media: medium of the files, "image", "sound" or "video".
  Returns: the index. A broken tar raises no error; its index has faults.
  Raises:
    DataError: the tar cannot be read, or the cache cannot be read or written.
  """
  try:
    status = path.stat()
    identity = [_VERSION, str(path), status.st_size, status.st_mtime_ns, json_first, max_bytes, media]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    cached = directory / f"{name}.index"
    if not cached.exists():
      _write(cached, *scan(path, json_first=json_first, max_bytes=max_bytes, media=media))
    return TarIndex(cached)
  except OSError as error:
    raise DataError(f"Cannot index the shard {path}: {error}. Check it, and that --data.dir is writable.") from error
  except (ValueError, TypeError, KeyError) as error:
    raise DataError(f"The index {cached} of {path} is damaged ({error!r}). Delete it.") from error


def scan(path: Path, *, json_first: bool, max_bytes: int, media: str = "image") -> tuple[bytes, Faults]:
  """Make the rows of a tar's records, packed and in order, and its faults. Arguments as for `tar_index`.

  A tar in which records are in several places is read twice: to find that there are any, and to name them.
  """
  samples = _samples(path, json_first, max_bytes, media, ())
  if repeated := samples.repeated():
    samples = _samples(path, json_first, max_bytes, media, repeated)
    samples.name_scattered()
  return bytes(samples.rows), samples.faults


def _samples(path: Path, json_first: bool, max_bytes: int, media: str, repeated: Collection[int]) -> Samples:
  samples = Samples(json_first=json_first, max_bytes=max_bytes, medium=MEDIA[media], repeated=repeated)
  contents = zeros = end = 0
  fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # O_NONBLOCK: do not wait for the writer of a FIFO
  try:
    size = os.fstat(fd).st_size
    for member in members(fd, size):
      samples.add(member)
      end = member.end
      if member.kind == ZEROS:
        zeros += member.size
      else:
        contents += member.size
    samples.close()
  except BrokenTar as error:  # the last record may be incomplete and is not used
    samples.drop()
    samples.faults.broken = f"{path}, {error}"
  finally:
    os.close(fd)
  _account(samples.faults.bytes, contents=contents, zeros=zeros, end=end, size=size)
  return samples


def _account(found: Counter[str], *, contents: int, zeros: int, end: int, size: int) -> None:
  """Complete the number of bytes by use, which has files and captions."""
  taken = found.total()
  found["other members"] = contents - taken
  found["headers and padding"] = end - contents - zeros
  found["zeros after an archive"] = zeros
  found["not read"] = size - end


def _write(path: Path, rows: bytes, faults: Faults) -> None:
  """Write an index atomically. If several processes index the same tar, each finds a complete index or none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
  header = json.dumps({"count": len(rows) // ROW.size, **vars(faults)})
  partial.write_bytes(header.encode() + b"\n" + rows)
  partial.replace(path)
