"""Encoding of one record: captions in .txt or .json files, and records in ArrayRecord files.

A record in an ArrayRecord file consists of:

* the bytes `mmj1`
* the length of the header (4 bytes, little endian)
* the header: a JSON object in UTF-8 with "key" and "caption" (a string or a list of strings)
* the encoded file, up to the end

Nothing in a record can be executed. Each length is compared with the size of the record before it is used.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

from mmjax.data.captions import CAPTION_FIELDS, REMEDY, json_object, read_captions
from mmjax.data.downloads import instead
from mmjax.data.errors import DataError

MAX_TEXT_BYTES = 1_000_000
"""Largest size of a caption file, and of a record's header."""
_MAGIC = b"mmj1"
_LENGTH = struct.Struct("<I")


def parse_text(data: bytes, place: str) -> list[str]:
  """Read the caption of a .txt file. Raises DataError if it is not a text in UTF-8, or too long."""
  return read_captions(_decoded(data, place), f"{place}: the caption", typed=False)


def parse_json(data: bytes, place: str, field: str | None = None) -> list[str]:
  """Read the captions of a JSON object.

  Args:
    data: JSON in UTF-8.
    place: name of the file in error messages.
    field: field with the caption or a list of captions. None: the first of CAPTION_FIELDS that is present.
  Returns: the captions.
  Raises:
    DataError: the data are not a JSON object, or it has no caption.
  """
  return _captions(json_object(_decoded(data, place), place), place, field)


def encode_record(file: bytes, captions: list[str], key: str) -> bytes:
  """Encode a record for an ArrayRecord file. Raises DataError if the header is larger than MAX_TEXT_BYTES."""
  caption: Any = captions[0] if len(captions) == 1 else captions
  header = json.dumps({"key": key, "caption": caption}, ensure_ascii=False).encode()
  if len(header) > MAX_TEXT_BYTES:
    raise DataError(f"{key}: its captions take {len(header)} bytes, and the limit is {MAX_TEXT_BYTES}. Shorten them.")
  return _MAGIC + _LENGTH.pack(len(header)) + header + file


def decode_record(data: bytes, place: str, field: str | None = None) -> tuple[bytes, list[str], str]:
  """Decode a record that `encode_record` wrote.

  Args:
    data: the record.
    place: name of the record in error messages.
    field: field of the header with the captions. None: the first of CAPTION_FIELDS that is present.
  Returns: (encoded file, captions, key).
  Raises: DataError: the data are not such a record.
  """
  if data[:4] != _MAGIC or len(data) < 8:
    raise DataError(f"{place}: not a record of mmjax (python -m mmjax.data shard writes them). {REMEDY}")
  length = _LENGTH.unpack_from(data, 4)[0]
  if length > min(MAX_TEXT_BYTES, len(data) - 8):
    raise DataError(f"{place}: its header claims {length} bytes of {len(data) - 8}, at most {MAX_TEXT_BYTES}. {REMEDY}")
  fields = json_object(_decoded(data[8 : 8 + length], place), place)
  key = fields.get("key", "")
  return data[8 + length :], _captions(fields, place, field), key if isinstance(key, str) else ""


def _decoded(data: bytes, place: str) -> str:
  if len(data) > MAX_TEXT_BYTES:
    raise DataError(f"{place}: {len(data)} bytes of caption, and the limit is {MAX_TEXT_BYTES}. {REMEDY}")
  if found := instead(data):
    raise DataError(f"{place}: {found} and write the shard again. {REMEDY}")
  try:
    return data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise DataError(f"{place}: not UTF-8 ({error}). {REMEDY}") from error


def _captions(fields: Mapping[str, Any], place: str, field: str | None) -> list[str]:
  names = CAPTION_FIELDS if field is None else (field,)
  found = next((name for name in names if name in fields), None)
  if found is None:
    raise DataError(f"{place}: has no field {' or '.join(names)}. {REMEDY}")
  return read_captions(fields[found], f"{place}: the field {found!r}")
