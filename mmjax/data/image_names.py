"""Images of a folder by the names that a file of captions gives them. A file is one image, whatever its names."""

import os
import stat
import unicodedata
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data.captions import text_fault
from mmjax.data.errors import DataError


class Found(NamedTuple):
  """A file.

  Attributes:
    path: where it was found.
    identity: equal for all names of the same file: `a.png`, `./a.png`, `x/../a.png`, and links to it.
    name: its name in normal form, without `./`, `//` and `x/..`. The hash of it decides the split.
  """

  path: str
  identity: Hashable
  name: str


def find_image(directory: Path, name: Any, place: str, media: str = "image") -> Found:
  """Find the file of an image, a sound or a video, which may be a folder of frames.

  A name in another normal form of Unicode than the file's (macOS decomposes é) is found as well.

  Args:
    directory: folder of the images.
    name: name of the file, relative to the folder.
    place: file and line, for the error.
    media: word for what the file is, for the error.
  Raises: DataError: the name is no text, or there is no such file.
  """
  fault = None if name == "" else text_fault(name)
  if fault is not None:
    raise DataError(f"{place}: the name of the {media} {fault}. Correct the row, or use --data.on-bad-record skip.")
  for form in _forms(name):
    path = os.path.join(directory, form)
    identity = _identity(path, folders=media == "video")
    if identity is not None:
      return Found(path, identity, _normal(directory, form))
  near = next((other for other in _near(name) if _identity(os.path.join(directory, other)) is not None), None)
  raise DataError(
    f"{place}: there is no {media} {name!r} in {directory}{f', but {near!r}' if near else ''}. Correct the row, or use "
    "--data.on-bad-record skip."
  )


def _forms(name: str) -> Iterator[str]:
  """The name as it is, and in the normal forms of Unicode."""
  if name:
    yield name
  if not name.isascii():
    yield unicodedata.normalize("NFC", name)
    yield unicodedata.normalize("NFD", name)


def _identity(path: str, *, folders: bool = False) -> Hashable | None:
  try:
    status = os.stat(path)
  except (OSError, ValueError):  # ValueError: no file can have such a name
    return None
  if not stat.S_ISREG(status.st_mode) and not (folders and stat.S_ISDIR(status.st_mode)):
    return None
  if status.st_ino == 0:  # a file system without numbers
    return os.path.realpath(path)
  return status.st_dev, status.st_ino


def _normal(directory: Path, name: str) -> str:
  inside = os.path.relpath(name, directory) if os.path.isabs(name) else os.path.normpath(name)
  return unicodedata.normalize("NFC", inside.replace(os.sep, "/"))


def _near(name: str) -> Iterator[str]:
  """Names that were probably meant."""
  slashes = name.replace("\\", "/")
  for near in (name.strip(), slashes, slashes.strip().lower(), f"{name}.jpg", f"{name}.png"):
    if near not in ("", name):
      yield near
