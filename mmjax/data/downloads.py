"""Files that stand in place of what was to be downloaded: pointers of Git LFS, and pages of HTML."""

import re

_LFS = b"version https://git-lfs.github.com/spec/"
_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html[\s>])", re.IGNORECASE)


def instead(data: bytes) -> str | None:
  """Describe what stands in place of a file, and the remedy. None: it is neither a pointer nor a page.

  Example:
    >>> instead(b"<!DOCTYPE html><title>404</title>")
    'is a page of HTML in place of the file. Download it again'
  """
  if data.startswith(_LFS):
    return "is a pointer of Git LFS in place of the file. Run git lfs pull in its folder"
  return "is a page of HTML in place of the file. Download it again" if _PAGE.match(data) else None


def refused(data: bytes | None, record: str, otherwise: str) -> str:
  """Message about a file that cannot be read: what stands in its place, or else `otherwise`."""
  found = None if data is None else instead(data[:1000])
  return f"{record}: {otherwise}" if found is None else f"{record}: {found}."
