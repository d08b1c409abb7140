"""Index of the records of a tar. It is made once from the headers, cached on disk, and read one row at a time.

An index file is one line of JSON (count and faults), followed by rows of 25 bytes. Memory does not grow with the number
of records.
"""

import dataclasses
import hashlib
import io
import json
import os
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from mmjax.data.errors import DataError
from mmjax.data.shards.record import MAX_TEXT_BYTES
from mmjax.data.shards.tar_headers import BrokenTar, Member, members

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
PICKLES = ("pkl", "pickle", "pyd", "pth", "pt", "ckpt", "joblib", "dill")
ROW = struct.Struct("<QIQI?")
_VERSION = 1
_NAMED = 20  # number of faults of a shard that are described; all are counted


@dataclasses.dataclass(frozen=True)
class Row:
  """Location of a record in a tar.

  Attributes:
    image, image_size: position and size of the image, in bytes.
    text, text_size: position and size of the caption.
    json: True if the caption is JSON.
  """

  image: int
  image_size: int
  text: int
  text_size: int
  json: bool


@dataclasses.dataclass
class Faults:
  """Faults of a shard.

  Attributes:
    refused: number of members that are never read, by kind, such as "symbolic link".
    bad: number of records that cannot be used.
    named: descriptions of the first of these records.
    broken: the reason if the shard ends early; otherwise empty.
  """

  refused: Counter[str] = dataclasses.field(default_factory=Counter)
  bad: int = 0
  named: list[str] = dataclasses.field(default_factory=list)
  broken: str = ""

  def add(self, message: str) -> None:
    """Count a record that cannot be used."""
    self.bad += 1
    if len(self.named) < _NAMED:
      self.named.append(message)


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
    self.faults = Faults(Counter(found.pop("refused")), **found)

  def __len__(self) -> int:
    return self._count

  def row(self, position: int, read: Any) -> Row:
    """Read a row with the function `read(path, size, offset)`."""
    return Row(*ROW.unpack(read(self.path, ROW.size, self._start + position * ROW.size)))


def tar_index(path: Path, directory: Path, *, json_first: bool, max_bytes: int) -> TarIndex:
  """Read the index of a tar from the cache, or make it.

  A cached index is used only if the tar has the same size and modification time.

  Args:
    path: the tar.
    directory: folder of the cache.
    json_first: read captions from .json if a record has both .json and .txt.
    max_bytes: largest size of an image. A record with a larger image is bad.
  Returns: the index. A broken tar raises no error; its index has faults.
  Raises:
    DataError: the tar cannot be read, or the cache cannot be read or written.
  """
  try:
    status = path.stat()
    identity = [_VERSION, str(path), status.st_size, status.st_mtime_ns, json_first, max_bytes]
    name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
    cached = directory / f"{name}.index"
    if not cached.exists():
      _write(cached, *scan(path, json_first=json_first, max_bytes=max_bytes))
    return TarIndex(cached)
  except OSError as error:
    raise DataError(f"Cannot index the shard {path}: {error}. Check it, and that --data.dir is writable.") from error
  except (ValueError, TypeError, KeyError) as error:
    raise DataError(f"The index {cached} of {path} is damaged ({error!r}). Delete it.") from error


def scan(path: Path, *, json_first: bool, max_bytes: int) -> tuple[bytes, Faults]:
  """Make the rows of a tar's records, packed and in order, and its faults. Arguments as for `tar_index`."""
  rows, faults = io.BytesIO(), Faults()
  sample = _Sample("")
  fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # O_NONBLOCK: do not wait for the writer of a FIFO
  try:
    for member in members(fd, os.fstat(fd).st_size):
      if member.refused:
        faults.refused[member.refused] += 1
        continue
      key, extension = _key(member.name)
      if key != sample.key:
        rows.write(sample.packed(faults, json_first, max_bytes))
        sample = _Sample(key)
      if extension in PICKLES:
        faults.refused["pickle"] += 1
      else:
        sample.add(extension, member)
    rows.write(sample.packed(faults, json_first, max_bytes))
  except BrokenTar as error:  # the last record may be incomplete and is not used
    faults.broken = f"{path}, {error}"
  finally:
    os.close(fd)
  return rows.getvalue(), faults


class _Sample:
  """Consecutive members of a tar with the same key."""

  def __init__(self, key: str):
    self.key = key
    self._found: dict[str, Member] = {}

  def add(self, extension: str, member: Member) -> None:
    kind = "image" if extension in IMAGES else extension
    if kind in ("image", "txt", "json"):
      self._found.setdefault(kind, member)

  def packed(self, faults: Faults, json_first: bool, max_bytes: int) -> bytes:
    """Make the row. Empty if this is not a record, which is a fault unless it has neither image nor caption."""
    image = self._found.get("image")
    texts = [self._found[kind] for kind in ("json", "txt")[:: 1 if json_first else -1] if kind in self._found]
    if image is None and not texts:
      return b""
    if image is None or not texts:
      faults.add(f"{self.key}: has no {'image' if image is None else 'caption (.txt or .json)'}")
      return b""
    text = texts[0]
    for member, limit in ((image, max_bytes), (text, MAX_TEXT_BYTES)):
      if not 0 < member.size <= limit:
        faults.add(f"{member.name}: {member.size} bytes; 1 to {limit} are accepted")
        return b""
    return ROW.pack(image.offset, image.size, text.offset, text.size, text.name.lower().endswith(".json"))


def _key(name: str) -> tuple[str, str]:
  """Split a name into WebDataset's key and extension, at the first dot after the last slash."""
  folder, _, base = name.rpartition("/")
  stem, _, extension = base.partition(".")
  return f"{folder}/{stem}", extension.lower()


def _write(path: Path, rows: bytes, faults: Faults) -> None:
  """Write an index atomically. If several processes index the same tar, each finds a complete index or none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
  header = json.dumps({"count": len(rows) // ROW.size, **vars(faults)})
  partial.write_bytes(header.encode() + b"\n" + rows)
  partial.replace(path)
