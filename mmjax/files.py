"""Writing files so that a crash leaves either the old one or the new one."""

import os
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
  """Writes `content` (a text as UTF-8) beside `path` and renames it into place."""
  partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
  partial.write_bytes(content.encode() if isinstance(content, str) else content)
  partial.replace(path)
