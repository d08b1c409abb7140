"""The members of a tar, by its headers alone. Nothing is extracted; what does not belong in a shard is refused."""

import dataclasses
import os
import re
from collections.abc import Iterator

BLOCK = 512
MAX_EXTENSION = 65_536  # of a long name or a pax header; real ones have some hundred bytes
REGULAR = (b"0", b"\0", b"7")
_PAX = re.compile(rb"(\d{1,6}) ([^=\n]{1,255})=")
_REFUSED = {
  b"1": "hard link",
  b"2": "symbolic link",
  b"3": "character device",
  b"4": "block device",
  b"6": "FIFO",
}


class BrokenTar(Exception):
  """From here on nothing of this tar can be read; the message says where and why."""


@dataclasses.dataclass(frozen=True)
class Member:
  """A file in a tar, or the reason why it is refused.

  Attributes:
    name: as it stands in the archive.
    offset: of its first byte.
    size: bytes.
    refused: empty, or what it is: "symbolic link", "name that leaves the archive", ...
  """

  name: str
  offset: int
  size: int
  refused: str = ""


def members(fd: int, size: int) -> Iterator[Member]:
  """The files of the tar open at `fd` (`size` bytes), in its order; directories are passed over.

  Reads 512 bytes a member (and at most MAX_EXTENSION for a long name), whatever the headers claim.

  Raises:
    BrokenTar: a header that is none, a member that reaches beyond the end, or no end-of-archive mark: truncated.
  """
  at, renamed = 0, _Extension()
  while True:
    header = os.pread(fd, BLOCK, at)
    if len(header) < BLOCK:
      what = "it is empty" if size == 0 else "it ends without an end-of-archive mark, so it is truncated"
      raise BrokenTar(f"byte {at}: {what}")
    if not header.strip(b"\0"):
      return
    kind, length = header[156:157], _size(header, at)
    data = at + BLOCK
    if kind in REGULAR and renamed.size is not None:
      length = renamed.size
    if length > size - data:
      raise BrokenTar(f"byte {at}: a member of {length} bytes, and {size - data} are left: it is truncated")
    if kind in (b"x", b"L"):
      renamed = _extended(renamed, kind, os.pread(fd, length, data) if length <= MAX_EXTENSION else None)
    elif kind not in (b"g", b"K"):
      name = renamed.name or header_name(header)
      if kind != b"5":
        yield Member(name, data, length, renamed.refused or _refusal(kind, name))
      renamed = _Extension()
    at = data + -(-length // BLOCK) * BLOCK


def header_name(header: bytes) -> str:
  """The name in a header block; undecodable bytes become replacement characters."""
  name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
  if header[257:263] == b"ustar\0" and prefix:
    name = prefix + b"/" + name
  return name.decode("utf-8", "replace")


def is_header_of(header: bytes, size: int) -> bool:
  """Whether a block is the header of a regular file of that size (a longer one has its size in a pax header)."""
  try:
    return header[156:157] in REGULAR and _size(header, 0) == size
  except BrokenTar:
    return False


@dataclasses.dataclass(frozen=True)
class _Extension:
  """What an extended header says about the member after it."""

  name: str = ""
  size: int | None = None
  refused: str = ""


def _extended(before: _Extension, kind: bytes, data: bytes | None) -> _Extension:
  """A pax header (x) or a GNU long name (L)."""
  if data is None:
    return dataclasses.replace(before, refused=f"extended header over {MAX_EXTENSION} bytes")
  if kind == b"L":
    return dataclasses.replace(before, name=data.split(b"\0")[0].decode("utf-8", "replace"))
  for key, value in _pax(data):
    if key == b"path":
      before = dataclasses.replace(before, name=value.decode("utf-8", "replace"))
    elif key == b"size" and re.fullmatch(rb"\d{1,18}", value):
      before = dataclasses.replace(before, size=int(value))
    elif key == b"size" or key.startswith(b"GNU.sparse"):
      before = dataclasses.replace(before, refused="sparse or impossible size")
  return before


def _pax(data: bytes) -> Iterator[tuple[bytes, bytes]]:
  """The `length key=value` lines of a pax header, up to the first that is none."""
  at = 0
  while found := _PAX.match(data, at):
    end = at + int(found[1])
    if end <= found.end() or end > len(data):
      return
    yield found[2], data[found.end() : end - 1]
    at = end


def _size(header: bytes, at: int) -> int:
  """The size in a header whose checksum is right: octal digits, or a binary number where the first bit is set."""
  given = _octal(header[148:156], at)
  plain = header[:148] + b" " * 8 + header[156:]
  if given != sum(plain) and given != sum(plain) - 256 * sum(byte > 127 for byte in plain):  # some summed signed bytes
    raise BrokenTar(f"byte {at}: not a tar header (its checksum is wrong)")
  field = header[124:136]
  if field[0] == 0x80:
    return int.from_bytes(field[1:], "big")
  return _octal(field, at)


def _octal(field: bytes, at: int) -> int:
  digits = field.split(b"\0")[0].strip(b" ")
  if not re.fullmatch(rb"[0-7]{0,12}", digits):
    raise BrokenTar(f"byte {at}: not a tar header ({field!r} is not a number)")
  return int(digits or b"0", 8)


def _refusal(kind: bytes, name: str) -> str:
  if kind not in REGULAR:
    return _REFUSED.get(kind, "unknown kind of member")
  climbs = name.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", name) or re.match(r"[A-Za-z]:", name)
  return "name that leaves the archive" if climbs else ""
