"""The rule for texts of the data, used by every reader: captions, questions, answers and sentences.

A text is a string of Unicode characters. It has something to see in it: more than spaces and control characters. It
has no NUL character (a sign of UTF-16 that was read as UTF-8). Spaces around it and a byte order mark before it are not
part of it. Numbers, NaN, null, true and objects are no texts, and are never converted.

A caption is a text, but not a value that was printed (`['a cat', None]`), see mmjax.data.printed. An image has one
caption or a list of them.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

from mmjax.data.errors import DataError
from mmjax.data.printed import is_printed

CAPTION_FIELDS = ("caption", "text", "title", "captions")
"""Fields and columns that have the captions, in order of preference."""
MISSING = (
  "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
  "NaN", "None", "n/a", "nan", "null", "NaT", "\\N", "#NAME?", "#VALUE!", "#REF!", "#DIV/0!", "#NULL!", "#NUM!",
)  # fmt: skip
"""Words for a missing value where all values are texts: those of pandas, of MySQL, and errors of spreadsheets."""
REMEDY = "Correct the record, or use --data.on-bad-record skip."
_BYTE_ORDER_MARK = "\ufeff"
_BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10)))
"""Letters, marks and symbols that are blank: fillers of Hangul, Braille without dots, variation selectors."""
_UNSEEN = ("Cc", "Cf", "Zl", "Zp", "Zs")  # Unicode categories: control, format, separators


def clean(text: str) -> str:
  """Remove spaces around a text, and a byte order mark before it."""
  return text.strip().lstrip(_BYTE_ORDER_MARK).strip()


def is_blank(text: str) -> bool:
  """True if there is nothing to see in a text."""
  return all(unicodedata.category(character) in _UNSEEN or character in _BLANKS for character in text)


def text_fault(value: Any) -> str | None:
  """Describe why a value is no text. None: it is one."""
  if not isinstance(value, str):
    return "is empty" if value is None else f"is {value!r:.60}, not a text"
  if is_blank(value):
    return "is empty"
  if "\0" in value:
    return "has a NUL character; the file may be UTF-16: write it as UTF-8"
  try:
    value.encode()
  except UnicodeEncodeError as error:  # one half of a surrogate pair, such as \ud800 in JSON
    return f"is not Unicode text ({error})"
  return None


def caption_fault(value: Any, *, typed: bool = True) -> str | None:
  """Describe why a value is no caption. None: it is one. `typed`: see `read_captions`."""
  fault = text_fault(value)
  if fault is None and not typed and clean(value) in MISSING:
    return f"is {value!r}, which stands for a missing value. If the word is meant, add a full stop to it"
  if fault is None and is_printed(clean(value)):
    return f"is {value!r:.60}, a printed list, object or value; write each text by itself"
  return fault


def read_captions(value: Any, what: str, remedy: str = REMEDY, *, typed: bool = True) -> list[str]:
  """Check the captions of an image, and clean them.

  Args:
    value: a text or a list of texts, as it was read.
    what: file, record and field, for the error.
    remedy: last sentence of the error.
    typed: False for a text of a file in which all values are texts, so that MISSING stand for a value that is missing.
  Raises: DataError: it is something else.
  """
  texts = value if isinstance(value, (list, tuple)) else [value]
  fault: str | None
  if value is None or not texts:
    fault = "is empty: it is neither a text nor a list of texts"
  elif not all(isinstance(text, str) for text in texts):
    fault = f"is {value!r:.60}, neither a text nor a list of texts"
  else:
    fault = next((wrong for text in texts if (wrong := caption_fault(text, typed=typed))), None)
  if fault is not None:
    raise DataError(f"{what} {fault}. {remedy}")
  return [clean(text) for text in texts]


def json_object(text: str, place: str, remedy: str = REMEDY) -> Mapping[str, Any]:
  """Parse a JSON object, in which no field is there twice.

  Args:
    text: the JSON.
    place: file and line, for the error.
    remedy: last sentence of the error.
  Raises: DataError: it is not JSON, or is not an object.
  """
  try:
    fields = json.loads(text, object_pairs_hook=unique)
  except (ValueError, RecursionError) as error:  # ValueError: also for a number with too many digits for Python
    raise DataError(f"{place}: not JSON ({error}). {remedy}") from error
  if not isinstance(fields, dict):
    raise DataError(f"{place}: JSON, but not an object with a field such as caption. {remedy}")
  return fields


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Make a dict of the fields of a JSON object. Raises ValueError if one is there twice."""
  fields = dict(pairs)
  if len(fields) < len(pairs):
    (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
    raise ValueError(f"the field {name!r:.60} is there twice")
  return fields
