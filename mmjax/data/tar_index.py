"""Where each record of a tar lies: found once by its headers, kept in the cache, read back a row at a time.

An index is a line of JSON (counts and faults) and rows of 25 bytes, on disk: memory does not grow with the records.
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
from mmjax.data.shard_record import MAX_TEXT_BYTES
from mmjax.data.tar_headers import BrokenTar, Member, members

IMAGES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
PICKLES = ("pkl", "pickle", "pyd", "pth", "pt", "ckpt", "joblib", "dill")
ROW = struct.Struct("<QIQI?")
_VERSION = 1
_NAMED = 20  # faults of a shard that are named; all are counted


@dataclasses.dataclass(frozen=True)
class Row:
  """Where a record lies: its picture, its caption, and whether that is JSON."""

  image: int
  image_size: int
  text: int
  text_size: int
  json: bool


@dataclasses.dataclass
class Faults:
  """What is wrong with a shard.

  Attributes:
    refused: members that have no place in a shard, by what they are ("symbolic link"); they are never read.
    bad: how many records cannot be used, and `named`, what is wrong with the first of them.
    broken: why the shard ends early, if it does.
  """

  refused: Counter[str] = dataclasses.field(default_factory=Counter)
  bad: int = 0
  named: list[str] = dataclasses.field(default_factory=list)
  broken: str = ""

  def add(self, message: str) -> None:
    self.bad += 1
    if len(self.named) < _NAMED:
      self.named.append(message)


class TarIndex:
  """The rows of an index file.

  Attributes:
    path: of the index.
    faults: of the shard it describes.
  """

  def __init__(self, path: Path):
    self.path = path
    with path.open("rb") as file:
      line = file.readline(MAX_TEXT_BYTES)
      found = json.loads(line)
    self._start, self._count = len(line), int(found.pop("count"))
    if path.stat().st_size != self._start + self._count * ROW.size:
      raise ValueError("the index has another size than it says")
    self.faults = Faults(Counter(found.pop("refused")), **found)

  def __len__(self) -> int:
    return self._count

  def row(self, position: int, read: Any) -> Row:
    """A row, by `read(path, size, offset)`."""
    return Row(*ROW.unpack(read(self.path, ROW.size, self._start + position * ROW.size)))


def tar_index(path: Path, directory: Path, *, json_first: bool, max_bytes: int) -> TarIndex:
  """The index of a tar, from the cache where it is there, for this very size and time of change.

  Args:
    path: the tar.
    directory: of the cache.
    json_first: take captions from .json where there is a .txt as well.
    max_bytes: a picture with more is a bad record.

  Raises:
    DataError: the tar or the cache cannot be read or written. A tar that is broken has faults instead.
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
  """The packed rows of a tar's records, in its order, and what is wrong with it."""
  rows, faults = io.BytesIO(), Faults()
  sample = _Sample("")
  fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # never waits for a FIFO's writer
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
  except BrokenTar as error:  # a record that the cut may have gone through is not used
    faults.broken = f"{path}, {error}"
  finally:
    os.close(fd)
  return rows.getvalue(), faults


class _Sample:
  """The members of one key, one after the other in the tar."""

  def __init__(self, key: str):
    self.key = key
    self._found: dict[str, Member] = {}

  def add(self, extension: str, member: Member) -> None:
    kind = "image" if extension in IMAGES else extension
    if kind in ("image", "txt", "json"):
      self._found.setdefault(kind, member)

  def packed(self, faults: Faults, json_first: bool, max_bytes: int) -> bytes:
    """The row; empty where it is no record, which is a fault unless nothing of a record is there."""
    image = self._found.get("image")
    texts = [self._found[kind] for kind in ("json", "txt")[:: 1 if json_first else -1] if kind in self._found]
    if image is None and not texts:
      return b""
    if image is None or not texts:
      faults.add(f"{self.key}: has no {'picture' if image is None else 'caption (.txt or .json)'}")
      return b""
    text = texts[0]
    for member, limit in ((image, max_bytes), (text, MAX_TEXT_BYTES)):
      if not 0 < member.size <= limit:
        faults.add(f"{member.name}: {member.size} bytes; 1 to {limit} are accepted")
        return b""
    return ROW.pack(image.offset, image.size, text.offset, text.size, text.name.lower().endswith(".json"))


def _key(name: str) -> tuple[str, str]:
  """WebDataset's key and extension: the name is split at the first dot after the last slash."""
  folder, _, base = name.rpartition("/")
  stem, _, extension = base.partition(".")
  return f"{folder}/{stem}", extension.lower()


def _write(path: Path, rows: bytes, faults: Faults) -> None:
  """Atomically: of several processes that index the same tar, each finds a whole index or none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
  header = json.dumps({"count": len(rows) // ROW.size, **vars(faults)})
  partial.write_bytes(header.encode() + b"\n" + rows)
  partial.replace(path)
