"""Random tars: members of a few records, and all that tar writers put between them."""

import io
import random
import tarfile
from collections.abc import Iterator

NAMES = (
  "a", "b", "c", "a b", "a-b", "a~1", "holiday 2.0", "holiday 2.5", "holiday 2", "shot_3.5x", "0.001", "0.002", "A",
  "e\u0301te\u0301", "\u00e9t\u00e9", "\u65e5\u672c", "\udce9", "\udce8", "k" * 99, "k" * 130, "\u00e9" * 70,
  "x[1]", "line\nline", "tab\t",
)  # fmt: skip
FOLDERS = ("", "", "", "", "./", "d/", "d/", "v1.0/", "d/./", "d//", "f/" * 60, "../", "/abs/", "__MACOSX/", "C:/")
IMAGES = ("jpg", "JPG", "jpeg", "png", "PNG", "webp", "tif")
TEXTS = ("txt", "txt", "txt", "TXT", "json")
ODD = (
  "heic", "svg", "JP2", "caption", "text", "cls", "npy", "seg.png", "en.txt", "txt.gz", "jpg.bak", "", "tar", "mp4",
)  # fmt: skip
KINDS = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, b"V", b"D")
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
Member = tuple[str, bytes, bytes]  # name, content, kind; kind b"S" is a sparse member


def tar_case(rng: random.Random) -> list[bytes]:
  """Archives, one to three, that are joined to a file."""
  names = rng.sample(NAMES, 6) if rng.random() < 0.8 else rng.choices(NAMES, k=6)
  found = [list(_record(rng, name)) for name in names[: rng.randrange(1, 7)]]
  members = [member for some in found for member in some]
  if rng.random() < 0.1:
    rng.shuffle(members)
  elif rng.random() < 0.1:  # tar c *.jpg *.txt
    members.sort(key=lambda member: member[0].rpartition(".")[2])
  elif rng.random() < 0.3:
    members.sort()
  if rng.random() < 0.1:
    members.insert(rng.randrange(len(members) + 1), rng.choice(members))
  if rng.random() < 0.2:  # as macOS writes them
    members = [each for name, *rest in members for each in (_mac(name), (name, *rest))]
  cuts = sorted(rng.randrange(len(members) + 1) for _ in range(rng.choice((0, 0, 0, 1, 2))))
  return [_archive(rng, members[a:b]) for a, b in zip([0, *cuts], [*cuts, len(members)])]


def _record(rng: random.Random, name: str) -> Iterator[Member]:
  name = rng.choice(FOLDERS if rng.random() < 0.5 else ("",)) + name
  extensions = [rng.choice(IMAGES), rng.choice(TEXTS)]
  if rng.random() < 0.2:
    extensions.insert(rng.randrange(3), rng.choice((*ODD, *IMAGES, *TEXTS, "json")))
  if rng.random() < 0.08:
    extensions.pop(rng.randrange(len(extensions)))
  if rng.random() < 0.1:
    yield name.rpartition("/")[0] or "folder", b"", tarfile.DIRTYPE
  for extension in extensions:
    kind = tarfile.REGTYPE
    if rng.random() < 0.02:
      kind = rng.choice((*KINDS, b"S", b"pax sparse"))
    content = _content(rng, extension.rpartition(".")[2].lower()) if rng.random() > 0.01 else b""
    if rng.random() < 0.05:
      yield rng.choice((".DS_Store", "README", "d/Thumbs.db", ".hidden.jpg", "cover")), b"nothing", tarfile.REGTYPE
    yield f"{name}.{extension}" if extension else name, content, kind


def _content(rng: random.Random, extension: str) -> bytes:
  number = rng.randrange(10**6)
  if extension == "json":
    return b'{"caption": "json %d"}' % number
  if extension in ("txt", "caption", "text", "cls", "npy", "gz"):
    return b"text %d" % number
  return b"\xff\xd8\xff %d" % number + bytes(rng.choice((0, 500, 1500)))


def _mac(name: str) -> Member:
  folder, slash, base = name.rpartition("/")
  return f"{folder}{slash}._{base}", b"\0\5\x16\7" + bytes(100), tarfile.REGTYPE


def _archive(rng: random.Random, members: list[Member]) -> bytes:
  """An archive in a random format, with random padding."""
  data, form = io.BytesIO(), rng.choice(FORMATS)
  commented = members and form == tarfile.PAX_FORMAT and rng.random() < 0.3
  options: dict = {"pax_headers": {"comment": "everything"}} if commented else {}
  with tarfile.open(fileobj=data, mode="w", format=form, encoding="utf-8", errors="surrogateescape", **options) as tar:
    for name, content, kind in members:
      _add(rng, tar, name, content, kind)
    end = tar.offset  # type: ignore[attr-defined]
  padding = bytes(512 * rng.choice((1, 2, 2, 2, 20, 300)))
  return data.getvalue()[:end] + padding if end and rng.random() < 0.5 else data.getvalue()


def _add(rng: random.Random, tar: tarfile.TarFile, name: str, content: bytes, kind: bytes) -> None:
  if tar.format == tarfile.USTAR_FORMAT:
    name = _short(name)
  if kind == b"S":
    _add_sparse(tar, name, content, rng.choice((0, 0, 2)))
    return
  member = tarfile.TarInfo(name)
  if kind == b"pax sparse":
    if tar.format != tarfile.PAX_FORMAT:
      return
    written = (b"1\n0\n%d\n" % len(content)).ljust(512, b"\0") + content
    member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(len(content)),
                          "GNU.sparse.name": name}  # fmt: skip
    member.name, content = "GNUSparseFile.0/x", written
  elif kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
    member.type, member.linkname, content = kind, rng.choice(("a.jpg", "../a.jpg", "k" * 130)), b""
    if tar.format == tarfile.USTAR_FORMAT:
      member.linkname = "a.jpg"
  else:
    member.type = kind
  if kind in (tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
    content = b""
  member.size = len(content)
  tar.addfile(member, io.BytesIO(content))


def _short(name: str) -> str:
  """A name that fits into a ustar header."""
  folder, slash, base = name.rpartition("/")
  while len(base.encode("utf-8", "surrogateescape")) > 99:
    base = base[1:]
  return (folder if len(folder) < 140 else folder[:100].rstrip("/")) + slash + base


def _add_sparse(tar: tarfile.TarFile, name: str, content: bytes, more: int) -> None:
  """A sparse member of GNU tar's old format, with `more` blocks of its map after the header."""
  member = tarfile.TarInfo(name)
  member.type, member.size = tarfile.GNUTYPE_SPARSE, len(content)
  header = bytearray(member.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
  block = header[-512:]
  block[386:410] = b"%011o\0%011o\0" % (0, len(content))
  block[482], block[483:495] = bool(more), b"%011o\0" % len(content)
  block[148:156] = b" " * 8
  block[148:156] = b"%06o\0 " % sum(block)
  maps = b"".join(bytes(504) + bytes([place < more - 1]) + bytes(7) for place in range(more))
  data = bytes(header[:-512] + block) + maps + content + bytes(-len(content) % 512)
  tar.fileobj.write(data)  # type: ignore[union-attr]
  tar.offset += len(data)  # type: ignore[attr-defined]
