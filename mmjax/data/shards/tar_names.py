"""Names of the members of a tar: to which record each belongs, and as what."""

import posixpath
import re
import unicodedata
from typing import NamedTuple

IMAGE, TXT, JSON, PICKLE, UNREAD = "image", ".txt", ".json", "pickle", "unread"
IMAGES = (
  *("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff"),
  *("ppm", "pgm", "pbm", "pnm", "pfm", "avif", "avifs"),
)
"""Extensions of the formats that are decoded."""
PICKLES = ("pkl", "pickle", "pyd", "pth", "pt", "ckpt", "joblib", "dill")
UNREAD_IMAGES = (
  *("arw", "cr2", "cr3", "dcm", "dds", "dng", "emf", "eps", "exr", "fits", "hdr", "heic", "heif", "hif", "icns", "ico"),
  *("j2c", "j2k", "jp2", "jpc", "jpf", "jpx", "jxl", "jxr", "nef", "orf", "pcx", "psd", "qoi", "raf", "ras", "raw"),
  *("rgb", "rgba", "rw2", "sgi", "svg", "svgz", "tga", "wdp", "wmf", "xbm", "xcf", "xpm"),
)
UNREAD_CAPTIONS = (
  *("alt", "cap", "caption", "captions", "desc", "description", "jsn", "prompt", "tags", "text", "title", "transcript"),
)
_ROLES = {
  **dict.fromkeys(UNREAD_IMAGES + UNREAD_CAPTIONS, UNREAD),
  **dict.fromkeys(IMAGES, IMAGE),
  **dict.fromkeys(PICKLES, PICKLE),
  "txt": TXT,
  "json": JSON,
}
_COPY = re.compile(r"([~_ ]|\.(gz|bz2|xz|zst|bak|old|orig|tmp|part|\d{1,9}))+$", re.IGNORECASE)
_MAGIC = re.compile(
  rb"\xff\xd8\xff|\x89PNG|GIF8|RIFF....WEBP|II\*\0|MM\0\*|BM....\0\0\0\0|....ftyp(avi|hei|mif|jp2|crx)|"
  rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51|\xff\x0a|\0\0\0\x0cJXL |P[1-6]\s\d|(<\?xml.*)?<svg|8BPS|qoif",
  re.DOTALL,
)


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


def role(name: str, extension: str) -> str:
  """Role of a member in its record, from its name: IMAGE, TXT, JSON, PICKLE, UNREAD or none of them, empty.

  UNREAD are images and captions in formats that are not read. A copy, such as `a.jpg.bak` or `a.txt.gz`, is one too.
  """
  found = _ROLES.get(extension, "")
  if not found and (copy := _COPY.search(name[-40:])):
    original = place(name[: len(name) - len(copy[0])])
    return UNREAD if _ROLES.get(original.extension, PICKLE) != PICKLE else ""
  return found


def unread(name: str, extension: str, head: bytes) -> str:
  """Reason why a member that is neither image nor caption looks like one, and the remedy. Empty if it does not.

  Args:
    name: name of the member.
    extension: its extension.
    head: its first bytes.
  """
  if extension in UNREAD_IMAGES:
    return f"an image, but .{extension} is not read. Convert it to .jpg or .png"
  if extension in UNREAD_CAPTIONS:
    return "looks like a caption, and captions are read from .txt and .json. Rename it, or remove it"
  if role(name, extension) == UNREAD:
    return "looks like a copy of an image or a caption. Remove it, or rename it"
  if _MAGIC.match(head):
    return "its content is an image, but its name does not end in .jpg, .png or the like. Rename it"
  return ""


def shown(name: str, most: int = 200) -> str:
  """The name with escapes for control characters and for bytes that are not UTF-8, shortened to about `most`."""
  text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
  if not text.isprintable():
    text = "".join(
      letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
  return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"
