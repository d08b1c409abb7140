"""Image files on disk."""

from pathlib import Path

from mmjax.data.errors import DataError


def read_image_file(path: Path, max_bytes: int, *, otherwise: str) -> bytes:
  """Read an encoded image.

  Args:
    path: the file.
    max_bytes: largest accepted size. A larger file is not read.
    otherwise: what the user can do instead of a repair, for the error: "remove its row".
  Raises: DataError: the file is too large or cannot be read. The message names it.
  """
  try:
    size = path.stat().st_size
    if size > max_bytes:
      raise DataError(f"{path}: {size} bytes; up to {max_bytes} are accepted. Shrink it, or {otherwise}.")
    return path.read_bytes()
  except OSError as error:
    raise DataError(f"Cannot read {path}: {error.strerror}. Restore it or {otherwise}.") from error
