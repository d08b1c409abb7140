"""Shards, tar or ArrayRecord, with random access to their records."""

import os
from pathlib import Path
from typing import Protocol

from mmjax.data.errors import DataError
from mmjax.data.records import PRIMARY, Media, Record, captions_concept
from mmjax.data.shards.array_record_file import ArrayRecordFile
from mmjax.data.shards.media import MEDIA
from mmjax.data.shards.open_files import OpenFiles
from mmjax.data.shards.record import MAX_TEXT_BYTES, decode_record, parse_json, parse_text
from mmjax.data.shards.tar_headers import BrokenTar, members
from mmjax.data.shards.tar_index import TarIndex
from mmjax.data.shards.tar_names import shown
from mmjax.data.shards.tar_samples import Faults, Row

MAX_NAME = 4096  # characters of a record's id
TAR, ARRAY_RECORD = ".tar", (".array_record", ".arrayrecord", ".riegeli")


class Shard(Protocol):
  """Random access to the records of one file."""

  path: Path
  faults: Faults

  def __len__(self) -> int: ...

  def record(self, position: int) -> Record:
    """Read a record. Raises DataError if it is bad."""
    ...

  def captions(self, position: int) -> list[str]:
    """Read the captions of a record. Raises DataError if they are bad."""
    ...


class TarShard:
  """A WebDataset tar: members KEY.jpg (or another extension of the medium, mmjax.data.shards.media) and KEY.txt or
  KEY.json, one key after the other.

  Args:
    path: the tar.
    index: its index.
    files: open files, as descriptors.
    field: field of the captions in JSON. None: the first of CAPTION_FIELDS that is present.
    media: name of the medium, and of the field of a record with its file.
  """

  def __init__(self, path: Path, index: TarIndex, files: OpenFiles, field: str | None, media: Media = "image"):
    self.path, self.faults = path, index.faults
    self._index, self._files, self._field, self._media = index, files, field, media

  def __len__(self) -> int:
    return len(self._index)

  def record(self, position: int) -> Record:
    """Read a record. Raises DataError if it is bad."""
    row = self._row(position)
    name, file = self._member(row.file, row.file_size)
    return _record(self._media, file, self._texts(row), f"{self.path}:{name}")

  def captions(self, position: int) -> list[str]:
    """Read the captions of a record. Raises DataError if they are bad."""
    return self._texts(self._row(position))

  def _row(self, position: int) -> Row:
    return self._index.row(position, self._read)

  def _texts(self, row: Row) -> list[str]:
    name, data = self._member(row.text, row.text_size)
    place = f"{self.path}:{name}"
    return parse_json(data, place, self._field) if row.json else parse_text(data, place)

  def _member(self, start: int, size: int) -> tuple[str, bytes]:
    """Name and content of the member with this size whose headers begin at `start`."""
    try:
      member = self._files.use(self.path, lambda fd: next(members(fd, os.fstat(fd).st_size, start)))
    except OSError as error:
      raise self._unreadable(self.path, error) from error
    except BrokenTar as error:
      raise self._changed(start) from error
    if member.kind or member.size != size:
      raise self._changed(start)
    return shown(member.name, MAX_NAME), self._read(self.path, size, member.offset)

  def _read(self, path: Path, size: int, offset: int) -> bytes:
    try:
      data = self._files.use(path, lambda fd: os.pread(fd, size, offset))
    except OSError as error:
      raise self._unreadable(path, error) from error
    if len(data) < size:
      raise self._changed(offset)
    return data

  def _unreadable(self, path: Path, error: OSError) -> DataError:
    return DataError(f"Cannot read {path}: {error}. Restore it, or use --data.on-bad-record skip.")

  def _changed(self, place: int) -> DataError:
    return DataError(
      f"{self.path}, byte {place}: it has changed since it was indexed. Start the run again; should that not help, "
      f"delete {self._index.path}."
    )


class ArrayRecordShard:
  """An ArrayRecord file with records in the encoding of mmjax.data.shards.record.

  Args:
    path: the file.
    files: open files, as ArrayRecordFile.
    field: field of the captions. None: the first of CAPTION_FIELDS that is present.
    max_bytes: largest size of an encoded file.
    media: name of the medium, and of the field of a record with its file.
  """

  def __init__(self, path: Path, files: OpenFiles, field: str | None, max_bytes: int, media: Media = "image"):
    self.path, self.faults = path, Faults()
    self._files, self._field, self._max_bytes, self._media = files, field, max_bytes, media
    self._count = size = 0
    try:
      size = path.stat().st_size
      self._count = files.use(path, len)
    except (OSError, RuntimeError, ValueError) as error:  # the library raises any of these
      self.faults.broken = f"{path}: not a complete ArrayRecord file ({_first_line(error)})"
    self.faults.bytes["not read" if self.faults.broken else "ArrayRecord files"] = size

  def __len__(self) -> int:
    return self._count

  def record(self, position: int) -> Record:
    """Read a record. Raises DataError if it is bad."""
    file, texts, key = self._decoded(position)
    return _record(self._media, file, texts, f"{self.path}:{key or position}")

  def captions(self, position: int) -> list[str]:
    """Read the captions of a record. Raises DataError if it is bad."""
    return self._decoded(position)[1]

  def _decoded(self, position: int) -> tuple[bytes, list[str], str]:
    place = f"{self.path}, record {position}"
    try:
      most = self._max_bytes + MAX_TEXT_BYTES
      data = self._files.use(self.path, lambda file: file.read(position, most))
    except (OSError, RuntimeError, ValueError, IndexError) as error:
      raise DataError(f"{place}: cannot be read ({_first_line(error)}). Write the shard again.") from error
    file, texts, key = decode_record(data, place, self._field)
    if not 0 < len(file) <= self._max_bytes:
      what = MEDIA[self._media].what
      raise DataError(f"{place}: {what} of {len(file)} bytes; 1 to {self._max_bytes} are accepted.")
    return file, texts, key


def array_record_files() -> OpenFiles:
  """Make an `OpenFiles` for ArrayRecord files."""
  return OpenFiles(ArrayRecordFile, ArrayRecordFile.close)


def _record(media: Media, file: bytes, texts: list[str], name: str) -> Record:
  record = Record(captions={PRIMARY: texts}, id=name, concept=captions_concept(texts))
  record[media] = file
  return record


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [type(error).__name__])[0][:300]
