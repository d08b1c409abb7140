"""Members of a tar, from its headers alone. Nothing is extracted. Members that do not belong in a shard are refused."""

import dataclasses
import os
import re
import zlib
from collections.abc import Iterator
from typing import NamedTuple

BLOCK = 512
HEAD = 32  # bytes of a member's content that are read with its header
MAX_EXTENSION = 2**20  # bytes of a long name or a pax header; macOS writes extended attributes into it
MAX_ZEROS = 2**20  # zeros at the end of a tar: writers pad to 10 KiB, or to what --blocking-factor says
DIRECTORY, LABEL, ZEROS = "directory", "volume label", "end of archive"
CLIMBS = "name that leaves the archive"
_PAX = re.compile(rb"(\d{1,7}) ([^=\n]{1,255})=")
_CLIMBS = re.compile(r"[/\\]|[A-Za-z]:|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)
_OCTAL = re.compile(rb" *([0-7]{0,12}) *(\0|$)", re.DOTALL)
_REGULAR = (b"0", b"\0", b"7")
_NO_CONTENT = b"123456"  # links, devices, directories and FIFOs have none, whatever their size field says
_EXTENSIONS = (b"x", b"X", b"L")  # headers of the member after them: pax, Solaris' pax, GNU's long name
_KINDS = {
  b"1": "hard link",
  b"2": "symbolic link",
  b"3": "character device",
  b"4": "block device",
  b"5": DIRECTORY,
  b"6": "FIFO",
  b"D": DIRECTORY,
  b"M": "part of a member of another volume",
  b"S": "sparse member",
  b"V": LABEL,
}
_TRUNCATED = "it ends without an end-of-archive mark, so it is truncated"
_OTHER_FILES = {
  b"\x1f\x8b": "a gzip file; uncompress it",
  b"(\xb5/\xfd": "a Zstandard file; uncompress it",
  b"BZh": "a bzip2 file; uncompress it",
  b"\xfd7zXZ": "an xz file; uncompress it",
  b"PK": "a zip file; write its members into a tar",
  b"version https://git-lfs": "a pointer of Git LFS; run git lfs pull",
  b"<": "a page of HTML or XML; download it again",
}


class BrokenTar(Exception):
  """The tar cannot be read from some position on. The message gives the position and the reason."""


class Member(NamedTuple):
  """A member of a tar, or the zeros that end an archive. Each starts where the one before it ends.

  Attributes:
    name: name in the archive. Bytes that are not UTF-8 are surrogate escapes.
    start: position of its first header.
    offset: position of its first byte.
    size: size in bytes; of the end of an archive, the number of zeros.
    end: position of the next member.
    kind: empty for a regular file; DIRECTORY, LABEL or ZEROS; otherwise the reason why it is refused, such as "symbolic
      link" or CLIMBS.
    head: the first bytes from its offset on, at most HEAD.
  """

  name: str
  start: int
  offset: int
  size: int
  end: int
  kind: str = ""
  head: bytes = b""


def members(fd: int, size: int, at: int = 0) -> Iterator[Member]:
  """Iterate over the members of a tar, in order. Archives that were joined are read to the end of the last.

  Each member takes one read, and a long name at most MAX_EXTENSION bytes more, whatever the headers claim.

  Args:
    fd: descriptor of the open tar.
    size: size of the tar in bytes.
    at: position of the first header of a member.
  Raises:
    BrokenTar: a header is wrong, a member reaches beyond the end, or the mark at the end of the archive is missing.
  """
  start, extension, zeros = at, _NONE, None
  while at < size:
    header = os.pread(fd, BLOCK + HEAD, at)
    if not header[:BLOCK].strip(b"\0"):
      zeros = _zeros(fd, start, at, size)
      start, at, extension = zeros.end, zeros.end, _NONE
      continue
    try:
      data, length = _content(fd, header, at, size, extension.size)
    except BrokenTar as error:
      raise error if zeros is None else BrokenTar(f"after the end-of-archive mark, {error}") from error
    if zeros is not None:  # only now is it certain that they are no hole in the file
      yield zeros
      zeros = None
    kind, at = header[156:157], data + (length + BLOCK - 1) // BLOCK * BLOCK
    if kind in _EXTENSIONS or kind == b"g":
      content = os.pread(fd, length, data) if length <= MAX_EXTENSION else None
      extension = _global(extension, content, data) if kind == b"g" else _extended(extension, kind, content)
    elif kind != b"K":
      name = extension.name or _name(header)
      yield Member(name, start, data, length, at, _kind(kind, name, extension), header[BLOCK:])
      start, extension = at, _NONE
  if zeros is None:
    raise BrokenTar(f"byte {at}: {_TRUNCATED if at else 'it is empty'}")
  yield zeros


def _content(fd: int, header: bytes, at: int, size: int, given: int | None) -> tuple[int, int]:
  """Position and size of the content after a header. `given` is its size in an extended header."""
  length, kind, data = _size(header, at), header[156:157], at + BLOCK
  if kind in _NO_CONTENT:
    length = 0
  elif given is not None and kind not in _EXTENSIONS:
    length = given
  if kind == b"S":
    data = _after_sparse_map(fd, header, data)
  if length > size - data:
    raise BrokenTar(f"byte {at}: a member of {length} bytes, but only {size - data} are left: it is truncated")
  return data, length


def _zeros(fd: int, start: int, at: int, size: int) -> Member:
  """The end of an archive: zeros up to the next block that has others, or to the end of the file."""
  end = at
  while end < size:
    data = os.pread(fd, 2**16, end)
    found = data.lstrip(b"\0")
    end += (len(data) - len(found)) // BLOCK * BLOCK if found else len(data)
    if found or not data:
      break
  if end - at < BLOCK:
    raise BrokenTar(f"byte {at}: {_TRUNCATED}")
  if end - at > MAX_ZEROS:
    raise BrokenTar(f"byte {at}: {end - at} zeros, which no writer puts there: a part of it is missing")
  return Member("", start, at, end - at, end, ZEROS)


def _name(header: bytes) -> str:
  """Name in a header block."""
  name = header[:100].partition(b"\0")[0]
  if header[345] and header[257:263] == b"ustar\0":
    name = header[345:500].partition(b"\0")[0] + b"/" + name
  return name.decode("utf-8", "surrogateescape")


@dataclasses.dataclass(frozen=True)
class _Extension:
  """Content of extended headers, which applies to the member after them."""

  name: str = ""
  size: int | None = None
  refused: str = ""


_NONE = _Extension()


def _extended(before: _Extension, kind: bytes, data: bytes | None) -> _Extension:
  """Add the content of a pax header (x) or of a GNU long name (L). `data` is None if it is too large."""
  if data is None:
    return dataclasses.replace(before, refused=f"extended header over {MAX_EXTENSION} bytes")
  if kind == b"L":
    return dataclasses.replace(before, name=data.split(b"\0")[0].decode("utf-8", "surrogateescape"))
  fields = _pax(data)
  if fields is None:
    return dataclasses.replace(before, refused="damaged extended header")
  name, size = fields.get(b"GNU.sparse.name", fields.get(b"path")), fields.get(b"size")
  if name is not None:
    before = dataclasses.replace(before, name=name.decode("utf-8", "surrogateescape"))
  if size is not None:
    possible = re.fullmatch(rb"\d{1,18}", size)
    before = dataclasses.replace(before, **{"size": int(size)} if possible else {"refused": "impossible size"})
  if any(key.startswith(b"GNU.sparse.") for key in fields):
    before = dataclasses.replace(before, refused="sparse member")
  return before


def _global(before: _Extension, data: bytes | None, at: int) -> _Extension:
  """Check a pax header for all members after it, which may have comments and times, but no names and no sizes."""
  fields = None if data is None else _pax(data)
  if fields is None:
    raise BrokenTar(f"byte {at}: a global header that is damaged, or over {MAX_EXTENSION} bytes")
  if fields:
    name = min(fields).decode("ascii", "backslashreplace")
    raise BrokenTar(f"byte {at}: a global header sets {name!r} of all members after it, which is not read")
  return before


def _pax(data: bytes) -> dict[bytes, bytes] | None:
  """Names and sizes in a pax header, lines of `length key=value`; None if it is damaged."""
  fields, at = {}, 0
  while found := _PAX.match(data, at):
    end = at + int(found[1])
    if end <= found.end() or end > len(data) or data[end - 1 : end] != b"\n":
      return None
    if found[2] in (b"path", b"size") or found[2].startswith(b"GNU.sparse."):
      fields[found[2]] = data[found.end() : end - 1]
    at = end
  return None if data[at:].strip(b"\0") else fields


def _size(header: bytes, at: int) -> int:
  """Read the size in a header, in octal digits, or in binary if the first bit is set. The checksum is checked."""
  if len(header) < BLOCK:
    raise BrokenTar(f"byte {at}: {_other_file(header, at) or 'it ends within a header, so it is truncated'}")
  given = _octal(header[148:156])
  plain = header[:148] + b" " * 8 + header[156:BLOCK]
  summed = zlib.adler32(plain) & 0xFFFF  # one more than the sum, modulo 65,521; ten times as fast as sum
  if given is None or (summed != (given + 1) % 65_521 and given != _signed_sum(plain)):
    raise BrokenTar(f"byte {at}: {_other_file(header, at) or 'not a tar header (its checksum is wrong)'}")
  field = header[124:136]
  if field[0] == 0x80:
    return int.from_bytes(field[1:], "big")
  length = _octal(field)
  if length is None:
    raise BrokenTar(f"byte {at}: not a tar header ({field!r} is not a number)")
  return length


def _other_file(header: bytes, at: int) -> str:
  found = next((name for magic, name in _OTHER_FILES.items() if at == 0 and header.startswith(magic)), "")
  return found and f"not a tar but {found}"


def _signed_sum(data: bytes) -> int:
  """Checksum of the writers that take bytes as numbers from -128 to 127."""
  return sum(data) - 256 * sum(byte > 127 for byte in data)


def _octal(field: bytes) -> int | None:
  found = _OCTAL.match(field)
  return int(found[1] or b"0", 8) if found else None


def _after_sparse_map(fd: int, header: bytes, at: int) -> int:
  """Position of the content of a sparse member. Blocks with the rest of its map come first, if a flag says so."""
  more = header[482]
  while more:
    block = os.pread(fd, BLOCK, at)
    if len(block) < BLOCK:
      raise BrokenTar(f"byte {at}: a sparse member without its content: it is truncated")
    more, at = block[504], at + BLOCK
  return at


def _kind(kind: bytes, name: str, extension: _Extension) -> str:
  if kind == b"\0" and name.endswith("/"):  # as tar had it before directories had a kind of their own
    return DIRECTORY
  if kind not in _REGULAR:
    return _KINDS.get(kind, "unknown kind of member")
  if extension.refused:
    return extension.refused
  return CLIMBS if _CLIMBS.match(name) else ""
