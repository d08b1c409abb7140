"""Members of a tar, from its headers alone. Nothing is extracted. Members that do not belong in a shard are refused."""

import dataclasses
import os
import re
from collections.abc import Iterator

BLOCK = 512
MAX_EXTENSION = 65_536  # bytes of a long name or a pax header; real ones have a few hundred
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
  """The tar cannot be read from some position on. The message gives the position and the reason."""


@dataclasses.dataclass(frozen=True)
class Member:
  """A member of a tar.

  Attributes:
    name: name in the archive.
    offset: position of its first byte.
    size: size in bytes.
    refused: the reason if it is refused, such as "symbolic link" or "name that leaves the archive"; otherwise empty.
  """

  name: str
  offset: int
  size: int
  refused: str = ""


def members(fd: int, size: int) -> Iterator[Member]:
  """Iterate over the members of a tar, in order, without directories.

  Each member takes a read of 512 bytes, and a long name at most MAX_EXTENSION bytes more, whatever the headers claim.

  Args:
    fd: descriptor of the open tar.
    size: size of the tar in bytes.
  Raises:
    BrokenTar: a header is wrong, a member reaches beyond the end, or the mark at the end of the archive is missing.
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
      raise BrokenTar(f"byte {at}: a member of {length} bytes, but only {size - data} are left: it is truncated")
    if kind in (b"x", b"L"):
      renamed = _extended(renamed, kind, os.pread(fd, length, data) if length <= MAX_EXTENSION else None)
    elif kind not in (b"g", b"K"):
      name = renamed.name or header_name(header)
      if kind != b"5":
        yield Member(name, data, length, renamed.refused or _refusal(kind, name))
      renamed = _Extension()
    at = data + -(-length // BLOCK) * BLOCK


def header_name(header: bytes) -> str:
  """Name in a header block. Bytes that are not UTF-8 become replacement characters."""
  name, prefix = header[:100].split(b"\0")[0], header[345:500].split(b"\0")[0]
  if header[257:263] == b"ustar\0" and prefix:
    name = prefix + b"/" + name
  return name.decode("utf-8", "replace")


def is_header_of(header: bytes, size: int) -> bool:
  """True if a block is the header of a regular file of this size. A size in a pax header is not seen."""
  try:
    return header[156:157] in REGULAR and _size(header, 0) == size
  except BrokenTar:
    return False


@dataclasses.dataclass(frozen=True)
class _Extension:
  """Content of an extended header, which applies to the member after it."""

  name: str = ""
  size: int | None = None
  refused: str = ""


def _extended(before: _Extension, kind: bytes, data: bytes | None) -> _Extension:
  """Add the content of a pax header (x) or of a GNU long name (L). `data` is None if it is too large."""
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
  """Iterate over the `length key=value` lines of a pax header, up to the first wrong line."""
  at = 0
  while found := _PAX.match(data, at):
    end = at + int(found[1])
    if end <= found.end() or end > len(data):
      return
    yield found[2], data[found.end() : end - 1]
    at = end


def _size(header: bytes, at: int) -> int:
  """Read the size in a header, in octal digits, or in binary if the first bit is set. The checksum is checked."""
  given = _octal(header[148:156], at)
  plain = header[:148] + b" " * 8 + header[156:]
  if given != sum(plain) and given != sum(plain) - 256 * sum(byte > 127 for byte in plain):  # some sum signed bytes
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
