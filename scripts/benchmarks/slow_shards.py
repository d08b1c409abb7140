"""An obvious reader of tars, to compare with: Python's tarfile, and everything in memory."""

import dataclasses
import io
import json
import posixpath
import tarfile
import unicodedata
from collections.abc import Iterator

IMAGES = {"jpg", "jpeg", "png", "webp", "tif"}
TEXTS = {"txt", "json"}
UNREAD = {"heic", "svg", "jp2", "caption", "text", "gz", "bak"}


@dataclasses.dataclass
class Expected:
  """Records (image, captions, name of the image), names of the records with a fault, and the number of members."""

  records: list[tuple[bytes, list[str], str]] = dataclasses.field(default_factory=list)
  faults: list[str] = dataclasses.field(default_factory=list)
  members: int = 0


@dataclasses.dataclass
class File:
  """A member that is, or looks like, an image or a caption. `data` is None if it cannot be used."""

  archive: int
  name: str
  record: str
  sample: str
  extension: str
  data: bytes | None


def slow_tar(archives: list[bytes], *, drop_last: bool = False) -> Expected:
  """Read archives that are joined to one file, one by one. `drop_last`: without the sample before the end."""
  expected, files = Expected(), []
  for number, data in enumerate(archives):
    for name, kind, content in _members(data):
      expected.members += 1
      file = None if kind in (tarfile.DIRTYPE, b"V", b"D") else _file(number, name, content)
      if file is not None:
        files.append(file)
  last = (files[-1].archive, files[-1].sample) if files else None
  while drop_last and files and (files[-1].archive, files[-1].sample) == last:
    files.pop()
  for record in dict.fromkeys(file.record for file in files):
    _judge(record, files, expected)
  return expected


def _members(data: bytes) -> Iterator[tuple[str, bytes, bytes | None]]:
  """Members of an archive as (name, kind, content or None), up to its end or to where it was cut."""
  if not any(data):  # tarfile refuses some archives without members
    return
  try:
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8", errors="surrogateescape") as tar:
      for member in tar:
        content = None
        if member.isreg() and not member.issparse() and not _climbs(member.name):
          content = tar.extractfile(member).read()  # type: ignore[union-attr]
        if member.offset_data + (member.size if member.isreg() else 0) > len(data):
          return
        yield member.name, member.type, content
  except tarfile.ReadError:
    return


def _file(archive: int, name: str, data: bytes | None) -> File | None:
  folder, base = posixpath.split(posixpath.normpath(unicodedata.normalize("NFC", name)))
  stem, _, extension = base.rpartition(".")
  if base.startswith(".") and "\\" not in base:
    return None
  extension = extension.lower() if stem else ""
  if extension not in IMAGES | TEXTS | UNREAD:
    if not data or not data.startswith(b"\xff\xd8\xff"):
      return None
    data = None
  stem = stem or base
  return File(archive, name, posixpath.join(folder, stem), posixpath.join(folder, base.split(".")[0]), extension, data)


def _judge(record: str, files: list[File], expected: Expected) -> None:
  places = [place for place, file in enumerate(files) if file.record == record]
  parts = [files[place] for place in places]
  between = files[places[0] : places[-1] + 1]
  if len({file.archive for file in parts}) > 1 or len({file.sample for file in between}) > 1:
    expected.faults.append(record)
    return
  good = [file for file in parts if file.data is not None and file.extension not in UNREAD]
  images = [file for file in good if file.extension in IMAGES]
  texts = {kind: [file for file in good if file.extension == kind] for kind in TEXTS}
  chosen = texts["txt"] or texts["json"]
  complete = len(images) == 1 and len(chosen) == 1 and len(texts["json"]) <= 1 and images[0].data and chosen[0].data
  if complete:
    expected.records.append((images[0].data, _captions(chosen[0]), images[0].name))  # type: ignore[arg-type]
  if not complete or len(good) < len(parts):
    expected.faults.append(record)


def _captions(file: File) -> list[str]:
  text = (file.data or b"").decode()
  return [json.loads(text)["caption"]] if file.extension == "json" else [text]


def _climbs(name: str) -> bool:
  return name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":"
