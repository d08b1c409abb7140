"""Records into shards that mmjax.data.sources.shards reads: a shard is there whole, or not at all."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from mmjax.data.errors import DataError
from mmjax.data.records import PRIMARY, Record
from mmjax.data.shard_record import encode_record

Format = Literal["webdataset", "arrayrecord"]
_SUFFIXES: dict[str, str] = {"webdataset": ".tar", "arrayrecord": ".array_record"}
_MAGIC = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp"}


def write_shards(records: Iterable[Record], directory: Path, *, format: Format, per_shard: int) -> Iterator[Path]:
  """Writes DIRECTORY/00000.tar (or .array_record), 00001, ...; gives each path as it is done.

  Args:
    records: their main captions and pictures are kept; keys are numbers over all shards, nine digits.
    directory: created if need be; shards that are there already are an error.
    format: "webdataset" (KEY.jpg and KEY.txt, or KEY.json where there are several captions) or "arrayrecord".
    per_shard: records in each but the last.

  Raises:
    DataError: a record without caption, a directory that cannot be written, or shards that are there.
  """
  if per_shard < 1:
    raise DataError(f"--per-shard {per_shard}: a shard has at least one record.")
  suffix = _SUFFIXES[format]
  try:
    directory.mkdir(parents=True, exist_ok=True)
    if existing := sorted(directory.glob(f"*{suffix}")):
      raise DataError(f"{existing[0]} is there already. Choose another directory, or delete its shards.")
    for number, some in enumerate(_chunks(records, per_shard)):
      path = directory / f"{number:05}{suffix}"
      partial = path.with_name(path.name + ".partial")
      write = _write_tar if format == "webdataset" else _write_array_record
      write(partial, some)
      partial.replace(path)
      yield path
  except OSError as error:
    raise DataError(f"Cannot write shards into {directory}: {error}. Choose another directory.") from error


def _chunks(records: Iterable[Record], size: int) -> Iterator[Iterator[tuple[str, Record]]]:
  """Runs of at most `size` (key, record); one is used up before the next is asked for."""
  numbered = ((f"{number:09}", record) for number, record in enumerate(records))
  for first in numbered:
    yield _some(first, numbered, size)


def _some(first: tuple[str, Record], rest: Iterator[tuple[str, Record]], size: int) -> Iterator[tuple[str, Record]]:
  yield first
  for _ in range(size - 1):
    following = next(rest, None)
    if following is None:
      return
    yield following


def _write_tar(path: Path, records: Iterable[tuple[str, Record]]) -> None:
  with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
    for key, record in records:
      texts = record["captions"][PRIMARY]
      _add(tar, f"{key}.{extension(record['image'])}", record["image"])
      if len(texts) == 1:
        _add(tar, f"{key}.txt", texts[0].encode())
      else:
        _add(tar, f"{key}.json", json.dumps({"caption": texts}, ensure_ascii=False).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
  member = tarfile.TarInfo(name)  # no time, no owner: equal records make equal shards
  member.size = len(data)
  tar.addfile(member, io.BytesIO(data))


def _write_array_record(path: Path, records: Iterable[tuple[str, Record]]) -> None:
  from array_record.python import array_record_module

  writer: Any = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")  # pictures are compressed
  add: Callable[[bytes], None] = writer.write
  for key, record in records:
    add(encode_record(record["image"], record["captions"][PRIMARY], key))
  writer.close()


def extension(image: bytes) -> str:
  """That of an encoded picture, by its first bytes."""
  if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
    return "webp"
  found = next((name for magic, name in _MAGIC.items() if image.startswith(magic)), None)
  if found is None:
    raise DataError("A shard's pictures are JPEG, PNG, WebP, GIF or BMP; this one is none of them. Convert it.")
  return found
