"""One record in bytes: captions as .txt or .json, and the encoding in an ArrayRecord.

In an ArrayRecord a record is `mmj1`, the length of the header (4 bytes, little endian), the header (JSON in UTF-8, an
object with "caption", a string or a list of them, and "key"), and the encoded picture up to the end. Nothing in it can
be executed, and no length in it is believed before it is compared with what is there.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

from mmjax.data.errors import DataError

MAX_TEXT_BYTES = 1_000_000
"""Of a caption file, or of a record's header."""
CAPTION_FIELDS = ("caption", "text", "title", "captions")
_MAGIC = b"mmj1"
_LENGTH = struct.Struct("<I")
_REMEDY = "Correct the record, or use --data.on-bad-record skip."


def parse_text(data: bytes, place: str) -> list[str]:
  """The caption in a .txt file. Raises DataError where it is not UTF-8, or empty."""
  return _checked([_decoded(data, place)], place)


def parse_json(data: bytes, place: str, field: str | None = None) -> list[str]:
  """The captions in a JSON object.

  Args:
    data: UTF-8.
    place: what errors call it.
    field: with the caption or a list of them; by default the first of CAPTION_FIELDS that is there.

  Raises:
    DataError: it is not JSON, no object, or has no caption.
  """
  return _captions(_object(data, place), place, field)


def encode_record(image: bytes, captions: list[str], key: str) -> bytes:
  """The bytes of a record in an ArrayRecord."""
  caption: Any = captions[0] if len(captions) == 1 else captions
  header = json.dumps({"key": key, "caption": caption}, ensure_ascii=False).encode()
  if len(header) > MAX_TEXT_BYTES:
    raise DataError(f"{key}: its captions take {len(header)} bytes, and the limit is {MAX_TEXT_BYTES}. Shorten them.")
  return _MAGIC + _LENGTH.pack(len(header)) + header + image


def decode_record(data: bytes, place: str, field: str | None = None) -> tuple[bytes, list[str], str]:
  """(picture, captions, key) of what encode_record wrote. Raises DataError, naming `place`, for anything else."""
  if data[:4] != _MAGIC or len(data) < 8:
    raise DataError(f"{place}: not a record of mmjax (python -m mmjax.data shard writes them). {_REMEDY}")
  length = _LENGTH.unpack_from(data, 4)[0]
  if length > min(MAX_TEXT_BYTES, len(data) - 8):
    raise DataError(
      f"{place}: its header claims {length} bytes of {len(data) - 8}, at most {MAX_TEXT_BYTES}. {_REMEDY}"
    )
  fields = _object(data[8 : 8 + length], place)
  key = fields.get("key", "")
  return data[8 + length :], _captions(fields, place, field), key if isinstance(key, str) else ""


def _decoded(data: bytes, place: str) -> str:
  if len(data) > MAX_TEXT_BYTES:
    raise DataError(f"{place}: {len(data)} bytes of caption, and the limit is {MAX_TEXT_BYTES}. {_REMEDY}")
  try:
    return data.decode("utf-8")
  except UnicodeDecodeError as error:
    raise DataError(f"{place}: not UTF-8 ({error}). {_REMEDY}") from error


def _object(data: bytes, place: str) -> Mapping[str, Any]:
  try:
    fields = json.loads(_decoded(data, place))
  except DataError:
    raise
  except (ValueError, RecursionError) as error:  # ValueError: also a number with more digits than Python reads
    raise DataError(f"{place}: not JSON ({error}). {_REMEDY}") from error
  if not isinstance(fields, dict):
    raise DataError(f"{place}: JSON, but not an object with a field such as caption. {_REMEDY}")
  return fields


def _captions(fields: Mapping[str, Any], place: str, field: str | None) -> list[str]:
  names = CAPTION_FIELDS if field is None else (field,)
  found = next((name for name in names if name in fields), None)
  if found is None:
    raise DataError(f"{place}: has no field {' or '.join(names)}. {_REMEDY}")
  value = fields[found]
  texts = value if isinstance(value, list) else [value]
  if not texts or not all(isinstance(text, str) for text in texts):
    raise DataError(f"{place}: the field {found!r} is neither a text nor a list of texts. {_REMEDY}")
  return _checked(texts, place)


def _checked(texts: list[str], place: str) -> list[str]:
  texts = [text.strip() for text in texts]
  if not all(texts):
    raise DataError(f"{place}: the caption is empty. {_REMEDY}")
  try:
    "".join(texts).encode()
  except UnicodeEncodeError as error:  # half a surrogate pair, written as \ud800 in JSON
    raise DataError(f"{place}: the caption is not Unicode text ({error}). {_REMEDY}") from error
  return texts
