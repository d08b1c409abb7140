"""Records of a tar: members with one name, side by side. Each member that is not taken is counted or named."""

import dataclasses
import struct
from array import array
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from mmjax.data.shards import tar_names
from mmjax.data.shards.media import FILE, JSON, PICKLE, TXT, UNREAD, Medium
from mmjax.data.shards.record import MAX_TEXT_BYTES
from mmjax.data.shards.tar_headers import CLIMBS, DIRECTORY, LABEL, ZEROS, Member
from mmjax.data.shards.tar_names import shown

ROW = struct.Struct("<QIQI?")
MAX_NAMED = 20  # number of faults of a shard that are described; all are counted
HIDDEN = "name that begins with a dot"
_MAX_KINDS = 30  # extensions that are counted each by itself
_REMEDIES = {
  "symbolic link": "Write the tar with --dereference",
  "hard link": "Write the tar with --hard-dereference",
  "sparse member": "Write the tar without --sparse",
  CLIMBS: "Write the tar with names that begin with no / and no drive, and without .. in them",
}
_SIDE_BY_SIDE = "Write the tar anew with the members of each record side by side: tar --sort=name -cf NEW.tar DIR"


class Row(NamedTuple):
  """Location of a record in a tar.

  Attributes:
    file, file_size: position of the first header of the file, and its size, in bytes.
    text, text_size: the same of the caption.
    json: True if the caption is JSON.
  """

  file: int
  file_size: int
  text: int
  text_size: int
  json: bool


@dataclasses.dataclass
class Faults:
  """Faults of a shard, and an account of its members and bytes.

  Attributes:
    refused: number of members that are never read, by kind, such as "symbolic link".
    taken: number of members that are read, the file and the caption of each record.
    passed: number of members that are neither files nor captions of a record, by kind, such as ".cls".
    bad: number of records that cannot be used, and of files and captions that belong to none.
    faulty: number of members of these.
    named: descriptions of the first of these, each with a remedy.
    broken: the reason if the shard ends early; otherwise empty.
    bytes: number of bytes by use. They sum up to the size of the shard.
  """

  refused: Counter[str] = dataclasses.field(default_factory=Counter)
  taken: int = 0
  passed: Counter[str] = dataclasses.field(default_factory=Counter)
  bad: int = 0
  faulty: int = 0
  named: list[str] = dataclasses.field(default_factory=list)
  broken: str = ""
  bytes: Counter[str] = dataclasses.field(default_factory=Counter)

  def add(self, message: str) -> None:
    """Count a record that cannot be used."""
    self.bad += 1
    if len(self.named) < MAX_NAMED:
      self.named.append(message)

  @property
  def members(self) -> int:
    """Number of all members that were found."""
    return self.taken + self.faulty + self.refused.total() + self.passed.total()

  def merge(self, other: "Faults") -> None:
    """Add the numbers of another shard."""
    for mine, theirs in ((self.refused, other.refused), (self.passed, other.passed), (self.bytes, other.bytes)):
      mine.update(theirs)
    self.taken, self.faulty, self.bad = self.taken + other.taken, self.faulty + other.faulty, self.bad + other.bad


class _Part(NamedTuple):
  """A member of a record. `problem` is the reason, with a remedy, why it is not used; otherwise empty."""

  role: str
  member: Member
  problem: str


class Samples:
  """Rows and faults, from the members of a tar in order.

  Args:
    json_first: read captions from .json if a record has both .json and .txt.
    max_bytes: largest size of a file. A record with a larger one is bad.
    medium: medium of the files.
    repeated: `hash` of the names of records that are known to be in several places. They are bad.
  """

  def __init__(self, *, json_first: bool, max_bytes: int, medium: Medium, repeated: Collection[int] = ()):
    self.rows, self.faults = bytearray(), Faults()
    self._texts = (JSON, TXT) if json_first else (TXT, JSON)
    self._medium, self._limit = medium, min(max_bytes, 2**32 - 1)
    self._sample = ""
    self._records: dict[str, list[_Part]] = {}
    self._hashes = array("q")
    self._repeated = repeated
    self._places: dict[str, list[Member]] = {}

  def add(self, member: Member) -> None:
    """Add the next member."""
    if member.kind == ZEROS:  # what another archive begins with is of another record
      self.close()
      return
    sample, record, extension, hidden = tar_names.place(member.name)
    role = "" if hidden else tar_names.role(member.name, extension, self._medium)
    if member.kind in (DIRECTORY, LABEL):
      self._pass(member.kind)
    elif hidden:
      self._pass(HIDDEN)
    elif member.kind or role == PICKLE:
      self.faults.refused[member.kind or role] += 1
      if role in (FILE, TXT, JSON, UNREAD):
        remedy = _REMEDIES.get(member.kind, "Write the tar anew without it")
        self._add(sample, record, _Part(UNREAD, member, f"{member.kind}, which is refused. {remedy}"))
    elif role in (FILE, TXT, JSON):
      self._add(sample, record, _Part(role, member, ""))
    elif problem := tar_names.unread(member.name, extension, member.head, self._medium):
      self._add(sample, record, _Part(UNREAD, member, problem))
    else:
      self._pass(f".{extension}" if extension else "name without extension")

  def close(self) -> None:
    """End the sample. Members after this belong to others."""
    for record, parts in self._records.items():
      self._hashes.append(hash(record))
      if self._repeated and hash(record) in self._repeated:
        self._scattered(record, parts)
      else:
        self._finish(record, parts)
    self._records.clear()

  def drop(self) -> None:
    """Leave out the sample, because members of it may be missing."""
    self._fail([part for parts in self._records.values() for part in parts])
    self._records.clear()

  def repeated(self) -> set[int]:
    """`hash` of the names of records that were in several places."""
    found = np.sort(np.frombuffer(self._hashes, np.int64))
    return set(found[1:][found[1:] == found[:-1]].tolist())

  def name_scattered(self) -> None:
    """Count and describe the records that are in several places."""
    scattered = [_scattered(record, found) for record, found in self._places.items()]
    self.faults.named = [*scattered, *self.faults.named][:MAX_NAMED]
    self.faults.bad += len(self._repeated)

  def _pass(self, kind: str) -> None:
    kind, passed = shown(kind, 40), self.faults.passed
    passed[kind if kind in passed or len(passed) < _MAX_KINDS else "other extension"] += 1

  def _add(self, sample: str, record: str, part: _Part) -> None:
    if sample != self._sample:
      self.close()
      self._sample = sample
    self._records.setdefault(record, []).append(part)

  def _scattered(self, record: str, parts: Sequence[_Part]) -> None:
    self._fail(parts)
    if record in self._places or len(self._places) < MAX_NAMED:
      self._places.setdefault(record, []).extend(part.member for part in parts)

  def _finish(self, record: str, parts: Sequence[_Part]) -> None:
    """Make the row of a record, or name its fault."""
    unread = [part for part in parts if part.role == UNREAD]
    files, first, second = ([part for part in parts if part.role == role] for role in (FILE, *self._texts))
    texts = first or second
    fault = self._fault(record, files, texts, first and second)
    if unread:
      self.faults.add(f"{shown(unread[0].member.name)}: {unread[0].problem}")
    elif fault:
      self.faults.add(fault)
    if fault:
      self._fail(parts)
      return
    if unread:
      self._fail(unread)
    file, text = files[0].member, texts[0].member
    self.rows += ROW.pack(file.start, file.size, text.start, text.size, texts[0].role == JSON)
    self.faults.taken += 2
    self.faults.bytes[f"{self._medium.name}s"] += file.size
    self.faults.bytes["captions"] += text.size
    if first and second:
      self._pass(f"{second[0].role} beside {first[0].role}")

  def _fault(self, record: str, files: Sequence[_Part], texts: Sequence[_Part], both: Sequence[_Part]) -> str:
    """Reason why this is no record, and the remedy; empty if it is one."""
    for kind, found in ((f"{self._medium.name}s", files), ("captions", texts), ("captions", both)):
      if len(found) > 1:
        listed = _listed([part.member for part in found])
        return f"{shown(record)}: has {len(found)} {kind}: {listed}. Keep one, or rename the others"
    if not files:
      return tar_names.lacking(record, self._medium)
    if not texts:
      return f"{shown(record)}: has no caption (.txt or .json, after the same name). Add, rename or remove one"
    for part, limit in ((files[0], self._limit), (texts[0], MAX_TEXT_BYTES)):
      if not 0 < part.member.size <= limit:
        remedy = "Shrink it" if part.member.size else "Restore it"
        return f"{shown(part.member.name)}: {part.member.size} bytes; 1 to {limit} are accepted. {remedy}"
    return ""

  def _fail(self, parts: Sequence[_Part]) -> None:
    self.faults.faulty += sum(not part.member.kind for part in parts)


def _scattered(record: str, found: Sequence[Member]) -> str:
  names = [member.name for member in found]
  remedy = _SIDE_BY_SIDE
  if len(set(names)) < len(names):
    remedy = "A tar has each record once: write it anew with one of them"
  elif len({name.rpartition(".")[0] for name in names}) > 1:
    remedy = "Their names have different forms (./, or accents in NFC and in NFD): rename them"
  return f"{shown(record)}: its members are not side by side: {_listed(found)}. {remedy}"


def _listed(found: Sequence[Member]) -> str:
  more = f" and {len(found) - 4} more" if len(found) > 4 else ""
  return ", ".join(f"{shown(member.name)} (byte {member.start})" for member in found[:4]) + more
