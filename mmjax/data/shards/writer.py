"""Writer of shards for the source Shards. Each shard is written completely, and then renamed into place."""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from mmjax.data.captions import read_captions
from mmjax.data.errors import DataError
from mmjax.data.records import PRIMARY, Media, Record
from mmjax.data.shards.record import encode_record
from mmjax.data.sound.headers import sound_format
from mmjax.data.video.headers import video_format

Format = Literal["webdataset", "arrayrecord"]
_SUFFIXES: dict[str, str] = {"webdataset": ".tar", "arrayrecord": ".array_record"}
_MAGIC = {
  **{b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tif", b"MM\0*": "tif"},
  **{b"P%d" % number: "pnm" for number in range(1, 7)},
}


def write_shards(
  records: Iterable[Record], directory: Path, *, format: Format, per_shard: int, media: Media = "image"
) -> Iterator[Path]:
  """Write DIRECTORY/00000.tar (or .array_record), 00001, and so on.

  Args:
    records: records to write. Only the file and the main captions are written. Keys are numbers of nine digits,
      counted over all shards.
    directory: folder to write into. It is created if it does not exist, and must not contain shards.
    format: "webdataset" (KEY.jpg and KEY.txt, or KEY.json for several captions) or "arrayrecord".
    per_shard: number of records in each shard but the last.
    media: field of the records with the encoded file.
  Returns: an iterator over the paths. Each path is yielded when its shard is written.
  Raises:
    DataError: per_shard is less than 1, a file has an unknown format, captions are too long, the directory cannot be
      written, or it contains shards.
  """
  if per_shard < 1:
    raise DataError(f"--per-shard {per_shard}: a shard has at least one record.")
  suffix = _SUFFIXES[format]
  try:
    directory.mkdir(parents=True, exist_ok=True)
    if existing := sorted(directory.glob(f"*{suffix}")):
      raise DataError(f"{existing[0]} already exists. Choose another directory, or delete its shards.")
    for number, some in enumerate(_chunks(records, per_shard)):
      path = directory / f"{number:05}{suffix}"
      partial = path.with_name(path.name + ".partial")
      write = _write_tar if format == "webdataset" else _write_array_record
      write(partial, some, media)
      partial.replace(path)
      yield path
  except OSError as error:
    raise DataError(f"Cannot write shards into {directory}: {error}. Choose another directory.") from error


def _chunks(records: Iterable[Record], size: int) -> Iterator[Iterator[tuple[str, Record]]]:
  """Split records into iterators of at most `size` (key, record). Use up each iterator before asking for the next."""
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


def _write_tar(path: Path, records: Iterable[tuple[str, Record]], media: Media) -> None:
  with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
    for key, record in records:
      texts = _texts(record)
      file = encoded(record, media)
      _add(tar, f"{key}.{_EXTENSION[media](file, record['id'])}", file)
      if len(texts) == 1:
        _add(tar, f"{key}.txt", texts[0].encode())
      else:
        _add(tar, f"{key}.json", json.dumps({"caption": texts}, ensure_ascii=False).encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
  member = tarfile.TarInfo(name)  # no time and no owner, so that equal records give equal shards
  member.size = len(data)
  tar.addfile(member, io.BytesIO(data))


def _write_array_record(path: Path, records: Iterable[tuple[str, Record]], media: Media) -> None:
  from array_record.python import array_record_module

  writer: Any = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")  # files are compressed
  add: Callable[[bytes], None] = writer.write
  for key, record in records:
    add(encode_record(encoded(record, media), _texts(record), key))
  writer.close()


def _texts(record: Record) -> list[str]:
  """The main captions. Raises DataError where a reader of the shard would."""
  return read_captions(record["captions"][PRIMARY], f"{record['id']}: the caption")


def encoded(record: Record, media: Media) -> bytes:
  """The encoded file of a record. Raises DataError if it has none, or only samples in memory."""
  file = record.get(media)
  if not isinstance(file, bytes):
    raise DataError(f"{record['id']}: has no encoded {media}, which a shard consists of. Write it to a file first.")
  return file


def sound_extension(sound: bytes, record: str) -> str:
  """File extension of an encoded sound, from its first bytes. Raises DataError if the format is not read."""
  found = sound_format(sound)
  if found is None:
    raise DataError(f"{record}: a sound in a shard is WAV, FLAC, Ogg or MP3, and this is none. Convert it to FLAC.")
  return found.lower()


def video_extension(video: bytes, record: str) -> str:
  """File extension of an encoded video, from its first bytes. Raises DataError if the format is not read."""
  found = {"MP4": "mp4", "MATROSKA": "mkv", "GIF": "gif", "WEBP": "webp"}.get(video_format(video) or "")
  if found is None:
    raise DataError(
      f"{record}: a video in a shard is MP4, WebM, MKV, GIF or animated WebP, and this is none. Convert it to MP4."
    )
  return found


def extension(image: bytes, record: str) -> str:
  """File extension of an encoded image, from its first bytes. Raises DataError if the format is not known."""
  if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
    return "webp"
  if image[4:12] in (b"ftypavif", b"ftypavis"):
    return "avif"
  found = next((name for magic, name in _MAGIC.items() if image.startswith(magic)), None)
  if found is None:
    raise DataError(
      f"{record}: an image in a shard is JPEG, PNG, WebP, GIF, BMP, TIFF, PNM or AVIF, and this is none. Convert it."
    )
  return found


_EXTENSION: Mapping[Media, Callable[[bytes, str], str]] = {
  "image": extension,
  "sound": sound_extension,
  "video": video_extension,
}
