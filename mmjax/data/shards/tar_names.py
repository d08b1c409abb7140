"""Names of the members of a tar: to which record each belongs, and as what."""

import posixpath
import re
import unicodedata
from typing import NamedTuple

from mmjax.data.shards.media import PICKLE, UNREAD, UNREAD_CAPTIONS, Medium

_COPY = re.compile(r"([~_ ]|\.(gz|bz2|xz|zst|bak|old|orig|tmp|part|\d{1,9}))+$", re.IGNORECASE)


class Place(NamedTuple):
  """Position of a member among the records.

  Attributes:
    sample: WebDataset's key, up to the first dot of the base name. Members of a sample are neighbours.
    record: the name up to the last dot. Members of a record have the same.
    extension: the rest, in lower case. Empty without a dot.
    hidden: True if the base name begins with a dot, as the files that macOS adds (._NAME).
  """

  sample: str
  record: str
  extension: str
  hidden: bool


def place(name: str) -> Place:
  """Split the name of a member. `./a.jpg` is `a.jpg`, and names in NFC and in NFD are equal."""
  if not name.isascii():
    name = unicodedata.normalize("NFC", name)
  if "./" in name or "//" in name:
    name = posixpath.normpath(name)
  base = name.rfind("/") + 1
  first, last = name.find(".", base), name.rfind(".", base)
  if first < 0:
    return Place(name, name, "", False)
  return Place(name[:first], name[:last], name[last + 1 :].lower(), first == base and "\\" not in name)


def role(name: str, extension: str, medium: Medium) -> str:
  """Role of a member in its record, from its name: FILE, TXT, JSON, PICKLE, UNREAD or none of them, empty.

  UNREAD are files of the medium and captions in formats that are not read. A copy, such as `a.jpg.bak` or `a.txt.gz`,
  is one too.

  Args:
    name: name of the member.
    extension: its extension.
    medium: medium of the records.
  """
  found = medium.roles.get(extension, "")
  if not found and (copy := _COPY.search(name[-40:])):
    original = place(name[: len(name) - len(copy[0])])
    return UNREAD if medium.roles.get(original.extension, PICKLE) != PICKLE else ""
  return found


def unread(name: str, extension: str, head: bytes, medium: Medium) -> str:
  """Reason why a member that is neither file nor caption looks like one, and the remedy. Empty if it does not.

  Args:
    name: name of the member.
    extension: its extension.
    head: its first bytes.
    medium: medium of the records.
  """
  if extension in medium.unread:
    return f"{medium.what}, but .{extension} is not read. Convert it to {medium.usual}"
  if extension in UNREAD_CAPTIONS:
    return "looks like a caption, and captions are read from .txt and .json. Rename it, or remove it"
  if role(name, extension, medium) == UNREAD:
    return f"looks like a copy of {medium.what} or a caption. Remove it, or rename it"
  if medium.magic.match(head):
    return f"its content is {medium.what}, but its name does not end in {_examples(medium)}. Rename it"
  return ""


def lacking(record: str, medium: Medium) -> str:
  """The fault of a record without a file."""
  return f"{shown(record)}: has no {medium.name} ({_examples(medium)}, after the same name). Add, rename or remove one"


def _examples(medium: Medium) -> str:
  return f"{medium.usual.replace(' or ', ', ')} or the like"


def shown(name: str, most: int = 200) -> str:
  """The name with escapes for control characters and for bytes that are not UTF-8, shortened to about `most`."""
  text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
  if not text.isprintable():
    text = "".join(
      letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
  return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"
